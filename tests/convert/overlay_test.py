#!/usr/bin/env python3
"""commit and rebase on real overlays: content, and what is left when something goes wrong: killed, interrupted,
a full disk, a source that cannot be read. The overlay reads the same throughout, and a second run succeeds.

usage: overlay_test.py BIN_DIRECTORY [unittest arguments]
"""
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from scratch import MIB, Scratch, run, sha, wait_until_unlocked  # noqa: E402

PLATTER = ""


def platter(*words, **keywords):
    return run(PLATTER, *words, **keywords)


def content(image):
    """What the image reads as, through its chain, by the reference program."""
    run("qemu-img", "convert", "-O", "raw", image, "content.raw")
    with open("content.raw", "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Overlays(Scratch):
    MEMORY_MIB = 1024

    def image(self, name, size, seed, *options, pieces=40):
        """An image with writes and zeroes here and there."""
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, name, size)
        choose = random.Random(seed)
        commands = []
        for _ in range(pieces):
            offset = choose.randrange(size // 512) * 512
            length = min(choose.choice([512, 4096, 65536, 300 << 10]), size - offset)
            kind = choose.choice([f"write -P {choose.randrange(1, 255)}", f"write -P {choose.randrange(1, 255)}", "write -z"])
            commands += ["-c", f"{kind} {offset} {length}"]
        run("qemu-io", *commands, name)

    def chain(self, size=32 * MIB, cluster="64k"):
        self.image("base.qcow2", size, 1)
        backed = ["-o", f"cluster_size={cluster}", "-F", "qcow2", "-b"]
        self.image("middle.qcow2", size + 3 * MIB, 2, *backed, "base.qcow2")
        self.image("top.qcow2", size + 2 * MIB, 3, *backed, "middle.qcow2")


class Content(Overlays):
    def test_rebase_keeps_what_is_read(self):
        for cluster in ("512", "4k", "64k", "2M"):
            for target, extra in (("other.qcow2", []), ("base.qcow2", []), ("", []), ("other.qcow2", ["-c"])):
                with self.subTest(cluster=cluster, target=target, extra=extra):
                    for name in os.listdir("."):
                        os.remove(name)
                    self.chain(8 * MIB, cluster)
                    self.image("other.qcow2", 6 * MIB, 4)
                    before = content("top.qcow2")
                    platter("rebase", *extra, "-b", target, "-F", "qcow2", "top.qcow2")
                    run("qemu-img", "check", "-q", "top.qcow2")
                    self.assertEqual(content("top.qcow2"), before)
                    described = run("qemu-img", "info", "top.qcow2").stdout
                    self.assertEqual("backing file: " + target + "\n" in described, target != "", described)

    def test_a_first_backing_file_shows_nothing(self):
        for options in ("compat=1.1", "compat=0.10", "extended_l2=on"):
            with self.subTest(options=options):
                self.image("other.qcow2", 8 * MIB, 4)
                platter("create", "-q", "-f", "qcow2", "-o", options, "top.qcow2", "8M")
                run("qemu-io", "-f", "qcow2", "-c", "write -P 9 1M 100k", "top.qcow2")
                before = content("top.qcow2")
                platter("rebase", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2")
                run("qemu-img", "check", "-q", "top.qcow2")
                self.assertEqual(content("top.qcow2"), before)

    def test_commit_moves_everything_down(self):
        for cluster in ("512", "64k", "2M"):
            for base in (None, "base.qcow2"):
                with self.subTest(cluster=cluster, base=base):
                    for name in os.listdir("."):
                        os.remove(name)
                    self.chain(8 * MIB, cluster)
                    before = content("top.qcow2")
                    platter("commit", *(["-b", base] if base else []), "top.qcow2")
                    for name in ("base.qcow2", "middle.qcow2", "top.qcow2"):
                        run("qemu-img", "check", "-q", name)
                    into = base or "middle.qcow2"
                    run("qemu-img", "convert", "-O", "raw", into, "into.raw")
                    with open("into.raw", "rb") as file:
                        committed = file.read(10 * MIB)
                    self.assertEqual(hashlib.sha256(committed).hexdigest(), before)
                    if base is None:
                        mapped = run("qemu-img", "map", "--output=json", "top.qcow2").stdout
                        self.assertNotIn('"depth": 0', mapped)
                        self.assertLessEqual(os.stat("top.qcow2").st_size, 1 << 23)

    def test_commit_into_raw(self):
        with open("base.raw", "wb") as file:
            file.write(os.urandom(3 * MIB))
        self.image("top.qcow2", 5 * MIB, 7, "-b", "base.raw", "-F", "raw")
        before = content("top.qcow2")
        platter("commit", "top.qcow2")
        self.assertEqual(sha("base.raw"), before)

    def test_emptied_overlay_takes_writes(self):
        self.chain(8 * MIB)
        platter("commit", "top.qcow2")
        run("qemu-io", "-c", "write -P 9 1M 3M", "top.qcow2")
        run("qemu-img", "check", "-q", "top.qcow2")
        platter("commit", "top.qcow2")
        run("qemu-img", "check", "-q", "top.qcow2")
        run("qemu-io", "-c", "read -P 9 1M 3M", "middle.qcow2")


class Trouble(Overlays):
    def big_chain(self):
        """Enough to be caught in the middle of."""
        run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", 256 * MIB)
        run("qemu-io", "-c", "write -P 1 0 200M", "base.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        run("qemu-io", "-c", "write -P 2 8M 160M", "top.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "other.qcow2", 256 * MIB)
        run("qemu-io", "-c", "write -P 3 0 250M", "other.qcow2")

    COMMANDS = (["commit", "-r", "100M", "top.qcow2"], ["rebase", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2"])

    def stop(self, words, number):
        """Starts it and sends the signal once it has written something; whether it was caught in time."""
        written = "base.qcow2" if words[0] == "commit" else "top.qcow2"
        before = os.stat(written).st_mtime_ns
        process = subprocess.Popen([PLATTER, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and os.stat(written).st_mtime_ns == before and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        wait_until_unlocked("base.qcow2", "top.qcow2")
        return process.returncode, errors

    def test_killed_or_interrupted(self):
        for words in self.COMMANDS:
            for number in (signal.SIGKILL, signal.SIGINT):
                with self.subTest(words=words, signal=number):
                    self.big_chain()
                    before = content("top.qcow2")
                    status, errors = self.stop(words, number)
                    self.assertIn(status, (-number, 0))
                    self.assertEqual(content("top.qcow2"), before)
                    if status != 0 and number == signal.SIGINT:
                        self.assertIn("Interrupted: 'top.qcow2'", errors)
                    for name in ("base.qcow2", "top.qcow2"):
                        # A kill may leak clusters, and nothing worse.
                        self.assertIn(run("qemu-img", "check", name, status=None).returncode, (0, 3))
                    platter(*[word for word in words if word not in ("-r", "100M")])
                    self.assertEqual(content("top.qcow2"), before)
                    self.assertIn(run("qemu-img", "check", "top.qcow2", status=None).returncode, (0, 3))

    def test_full_disk(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (20 * MIB, 20 * MIB))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", 64 * MIB)
        run("qemu-img", "create", "-q", "-f", "qcow2", "other.qcow2", 64 * MIB)
        run("qemu-io", "-c", "write -P 1 0 15M", "other.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
        run("qemu-io", "-c", "write -P 2 0 32M", "top.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "top.qcow2", "-F", "qcow2", "higher.qcow2")
        for words, image in ((["commit", "top.qcow2"], "top.qcow2"),
                             (["rebase", "-b", "other.qcow2", "-F", "qcow2", "higher.qcow2"], "higher.qcow2")):
            with self.subTest(words=words):
                before = content(image)
                done = platter(*words, status=1, preexec_fn=limit)
                self.assertIn("File too large", done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertEqual(content(image), before)
        before = content("higher.qcow2")
        platter("rebase", "-b", "other.qcow2", "-F", "qcow2", "higher.qcow2")
        self.assertEqual(content("higher.qcow2"), before)
        before = content("top.qcow2")
        platter("commit", "top.qcow2")
        self.assertEqual(content("top.qcow2"), before)

    def test_unreadable_source(self):
        """A compressed cluster whose stream is broken."""
        with open("plain.raw", "wb") as file:
            for number in range(256):
                file.write(bytes([number, 7, 9, 11]) * 16384)
        run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", "plain.raw", "bad.qcow2")
        with open("bad.qcow2", "r+b") as file:
            file.seek(5 << 16)  # behind header, refcounts, L1 and L2: streams
            file.write(b"\xff" * 2000)
        run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", 16 * MIB)
        run("qemu-img", "rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", "bad.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "bad.qcow2", "-F", "qcow2", "top.qcow2")
        hashes = {name: sha(name) for name in ("bad.qcow2", "top.qcow2")}
        done = platter("commit", "bad.qcow2", status=1)
        self.assertRegex(done.stderr, r"^platter: error while reading at byte \d+: qcow2: Could not decompress[^\n]*\n$")
        done = platter("rebase", "-b", "", "top.qcow2", status=1)
        self.assertRegex(done.stderr, r"^platter: error while reading from old backing file at byte \d+: [^\n]*\n$")
        self.assertEqual(hashes["bad.qcow2"], sha("bad.qcow2"))
        self.assertIn("backing file: bad.qcow2\n", run("qemu-img", "info", "top.qcow2").stdout)
        done = platter("convert", "-c", "-O", "qcow2", "bad.qcow2", "out.qcow2", status=1)
        self.assertIn("Could not decompress", done.stderr)
        self.assertFalse(os.path.exists("out.qcow2"))
        salvaged = platter("convert", "--salvage", "-O", "raw", "bad.qcow2", "out.raw")
        self.assertIn("warning: error while reading offset ", salvaged.stderr)
        with open("out.raw", "rb") as file, open("plain.raw", "rb") as plain:
            ours, good = file.read(), plain.read()
        wrong = [at for at in range(0, len(good), 65536) if ours[at:at + 65536] != good[at:at + 65536]]
        self.assertTrue(0 < len(wrong) < 64, wrong)
        self.assertTrue(all(ours[at:at + 65536] == bytes(65536) for at in wrong))

    def test_locked_base(self):
        self.chain(8 * MIB)
        hashes = {name: sha(name) for name in ("base.qcow2", "middle.qcow2", "top.qcow2")}
        with subprocess.Popen(["qemu-io", "middle.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            holder.stdin.write(b"read 0 512\n")
            holder.stdin.flush()
            holder.stdout.readline()
            for words in (["commit", "top.qcow2"], ["rebase", "-b", "", "top.qcow2"]):
                self.assertIn("lock", platter(*words, status=1).stderr)
            holder.communicate(b"quit\n")
        self.assertEqual(hashes["top.qcow2"], sha("top.qcow2"))


if __name__ == "__main__":
    PLATTER = os.path.join(os.path.abspath(sys.argv.pop(1)), "platter")
    unittest.main(verbosity=2)
