#!/usr/bin/env python3
"""convert and compare on real files: content, what is left behind when something goes wrong, exit statuses.

usage: convert_test.py BIN_DIRECTORY [unittest arguments]
"""
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from scratch import MIB, Scratch, run, sha  # noqa: E402

TREES = ["/usr/include", "/usr/share/doc", "/usr/lib/python3", "/usr/share"]
TREE_BYTES = 48 * MIB
PLATTER = ""


def platter(*words, **keywords):
    return run(PLATTER, *words, **keywords)


def gather_tree(directory):
    """Copies real files until there are enough, hard links and symbolic links included."""
    total = 0
    for root in TREES:
        for parent, _, names in os.walk(root):
            target = directory + parent
            os.makedirs(target, exist_ok=True)
            for name in names:
                source = os.path.join(parent, name)
                try:
                    shutil.copy2(source, os.path.join(target, name), follow_symlinks=False)
                    total += os.lstat(source).st_size
                except OSError:
                    continue  # unreadable to this user
                if total >= TREE_BYTES:
                    return


class FileSystemImage(Scratch):
    """A real ext4, back and forth."""

    def test_round_trip(self):
        gather_tree("tree")
        with open("fs.raw", "wb") as image:
            image.truncate(TREE_BYTES * 2)
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "fs.raw")
        original = sha("fs.raw")
        for number, options in enumerate([
                ["-O", "qcow2"], ["-W", "-O", "qcow2"], ["-O", "qcow2", "-m", "1"],
                ["-O", "qcow2", "-S", "0"], ["-O", "qcow2", "-S", "64k", "-m", "16"],
                ["-O", "qcow2", "-o", "cluster_size=2M"], ["-O", "qcow2", "-o", "cluster_size=512,compat=0.10"],
                ["-O", "qcow2", "-o", "preallocation=metadata"], ["-O", "qcow2", "-t", "none", "-T", "none"],
                ["--engine", "threads", "--reactors", "3", "-O", "qcow2"],
                ["-c", "-O", "qcow2"], ["-c", "-W", "-O", "qcow2", "-o", "cluster_size=4k,compression_type=zstd"],
                ["-c", "-O", "qcow2", "-o", "cluster_size=2M"],
        ]):
            with self.subTest(options=options):
                platter("convert", *options, "fs.raw", "fs.qcow2")
                run("qemu-img", "check", "-q", "fs.qcow2")
                self.assertEqual(run("qemu-img", "compare", "fs.raw", "fs.qcow2").stdout, "Images are identical.\n")
                platter("convert", "-f", "qcow2", *(["-W"] if number % 2 else []), "fs.qcow2", "back.raw")
                self.assertEqual(sha("back.raw"), original)
                platter("compare", "fs.raw", "fs.qcow2")
        run("e2fsck", "-fn", "back.raw")
        # Holes stay holes, about as many as qemu-img keeps.
        run("qemu-img", "convert", "fs.raw", "theirs.raw")
        ours, theirs = os.stat("back.raw").st_blocks, os.stat("theirs.raw").st_blocks
        self.assertLess(ours, theirs * 1.05 + 2048)

    def test_the_file_system_copies(self):
        self.make("a.raw", [(i * 3 * MIB + 512, os.urandom(MIB + 4096)) for i in range(8)], 32 * MIB + 512)
        platter("convert", "-C", "a.raw", "b.raw")
        self.assertEqual(sha("a.raw"), sha("b.raw"))
        self.assertLess(os.stat("b.raw").st_blocks * 512, 12 * MIB)
        run("qemu-img", "convert", "-O", "qcow2", "a.raw", "a.qcow2")
        platter("convert", "-C", "a.qcow2", "c.raw")
        run("qemu-img", "compare", "a.raw", "c.raw")
        platter("convert", "-C", "-O", "qcow2", "a.raw", "c.qcow2")
        run("qemu-img", "compare", "a.raw", "c.qcow2")

    def test_two_runs_in_guest_order_give_the_same_file(self):
        self.make("a.raw", [(i * 3 * MIB, os.urandom(2 * MIB)) for i in range(16)], 64 * MIB)
        platter("convert", "-m", "1", "-O", "qcow2", "a.raw", "a.qcow2")
        platter("convert", "-m", "1", "-O", "qcow2", "a.raw", "b.qcow2")
        self.assertEqual(sha("a.qcow2"), sha("b.qcow2"))


class Shapes(Scratch):
    def test_existing_target_is_overwritten_whole(self):
        self.make("a.raw", [(MIB, os.urandom(MIB)), (5 * MIB + 512, b"x" * 700)], 8 * MIB)
        for target, form in (("t.raw", "raw"), ("t.qcow2", "qcow2")):
            self.make("junk", [(0, b"\xaa" * (10 * MIB))], 10 * MIB)
            run("qemu-img", "convert", "-O", form, "junk", target)
            platter("convert", "-n", "-O", form, "a.raw", target)
            # What lies past the source's end is not convert's.
            self.assertEqual(run("qemu-img", "compare", "-f", "raw", "-F", form, "a.raw", target, status=1).stdout,
                             "Warning: Image size mismatch!\nContent mismatch at offset 8388608!\n")

    def test_target_is_zero_leaves_zeroes_alone(self):
        self.make("a.raw", [(MIB, b"y" * MIB)], 8 * MIB)
        self.make("t.raw", [], 8 * MIB)
        platter("convert", "-n", "--target-is-zero", "-O", "raw", "a.raw", "t.raw")
        self.assertEqual(sha("a.raw"), sha("t.raw"))
        self.assertLessEqual(os.stat("t.raw").st_blocks * 512, MIB + 65536)

    def test_small_target_is_refused(self):
        self.make("a.raw", [(0, b"a")], 8 * MIB)
        run("qemu-img", "create", "-q", "-f", "qcow2", "t.qcow2", "4M")
        done = platter("convert", "-n", "-O", "qcow2", "a.raw", "t.qcow2", status=1)
        self.assertIn("output file is smaller than input file", done.stderr)
        self.assertTrue(os.path.exists("t.qcow2"))

    def test_sources_are_concatenated(self):
        self.make("a.raw", [(0, os.urandom(MIB))], 2 * MIB)
        self.make("b.raw", [(MIB, os.urandom(MIB))], 3 * MIB)
        platter("convert", "-O", "qcow2", "a.raw", "b.raw", "ours.qcow2")
        run("qemu-img", "convert", "a.raw", "b.raw", "theirs.raw")
        run("qemu-img", "compare", "ours.qcow2", "theirs.raw")

    def test_overlay_stays_an_overlay(self):
        self.make("base.raw", [(0, os.urandom(4 * MIB))], 4 * MIB)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "top.qcow2", "8M")
        run("qemu-io", "-c", "write -P 5 1M 128k", "-c", "write -z 2M 256k", "-c", "write -P 6 6M 64k", "top.qcow2")
        platter("convert", "-O", "qcow2", "-B", "base.raw", "-F", "raw", "top.qcow2", "copy.qcow2")
        run("qemu-img", "check", "-q", "copy.qcow2")
        run("qemu-img", "compare", "top.qcow2", "copy.qcow2")
        self.assertLess(os.stat("copy.qcow2").st_size, 2 * MIB)
        platter("convert", "-O", "qcow2", "top.qcow2", "flat.qcow2")
        run("qemu-img", "compare", "top.qcow2", "flat.qcow2")
        self.assertNotIn("backing", run("qemu-img", "info", "flat.qcow2").stdout)

    def test_odd_sizes(self):
        for size in (1, 511, 512, 513, 65535, MIB + 1):
            self.make("a.raw", [(0, os.urandom(size))], size)
            platter("convert", "-O", "qcow2", "a.raw", "a.qcow2")
            platter("convert", "a.qcow2", "b.raw")
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw")
            run("qemu-img", "convert", "-f", "raw", "-O", "raw", "a.raw", "theirs.raw")
            self.assertEqual(sha("b.raw"), sha("theirs.raw"))


class Progress(Scratch):
    TEXT = re.compile(r"(    \(\d+\.\d\d/100%\)\r)+\n")

    def test_text_in_a_pipe(self):
        self.make("a.raw", [(0, os.urandom(8 * MIB))], 16 * MIB)
        done = subprocess.run([PLATTER, "convert", "-p", "-O", "qcow2", "a.raw", "a.qcow2"], stdout=subprocess.PIPE,
                              check=True)
        out = done.stdout.decode()
        self.assertTrue(self.TEXT.fullmatch(out), repr(out))
        self.assertTrue(out.startswith("    (0.00/100%)\r"))
        self.assertTrue(out.endswith("    (100.00/100%)\r\n"))

    def test_quiet_wins(self):
        self.make("a.raw", [(0, os.urandom(MIB))], MIB)
        self.assertEqual(platter("convert", "-p", "-q", "a.raw", "b.raw").stdout, "")


class Trouble(Scratch):
    def slow_conversion(self):
        """A conversion that takes long: gigabytes of zeroes that are to be written as data."""
        self.make("a.raw", [(0, b"data")], 64 << 30)
        process = subprocess.Popen([PLATTER, "convert", "-S", "0", "-O", "qcow2", "a.raw", "out.qcow2"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while not (os.path.exists("out.qcow2") and os.stat("out.qcow2").st_size > 4 * MIB):
            self.assertIsNone(process.poll(), "it ended by itself")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)
        return process

    def test_interrupts_leave_nothing_behind(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.slow_conversion()
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
            self.assertEqual(process.returncode, -number)
            self.assertIn("emoved the half-made 'out.qcow2'", errors)
            self.assertEqual(self.left(), {"a.raw"})

    def test_signal_asks_for_progress(self):
        process = self.slow_conversion()
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        self.assertRegex(errors, r"^    \(\d+\.\d\d/100%\)\n")

    def test_killed_run_can_be_repeated(self):
        process = self.slow_conversion()
        process.kill()
        process.communicate(timeout=30)
        self.make("b.raw", [(0, os.urandom(4 * MIB))], 8 * MIB)
        platter("convert", "-O", "qcow2", "b.raw", "out.qcow2")
        run("qemu-img", "check", "-q", "out.qcow2")
        run("qemu-img", "compare", "b.raw", "out.qcow2")

    def test_file_size_limit(self):
        self.make("a.raw", [(0, os.urandom(16 * MIB))], 16 * MIB)
        before = sha("a.raw")

        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MIB, 4 * MIB))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        for form in ("raw", "qcow2"):
            done = platter("convert", "-O", form, "a.raw", "out", status=1, preexec_fn=limit)
            self.assertIn("File too large", done.stderr)
            self.assertEqual(self.left(), {"a.raw"})
        self.assertEqual(sha("a.raw"), before)

    def test_full_disk(self):
        os.mkdir("small")
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", "small"], stderr=subprocess.DEVNULL)
        if mounted.returncode != 0:
            self.skipTest("mounting is not permitted")
        self.addCleanup(subprocess.run, ["umount", "small"])
        self.make("a.raw", [(0, os.urandom(16 * MIB))], 16 * MIB)
        for form in ("raw", "qcow2"):
            done = platter("convert", "-O", form, "a.raw", "small/out", status=1)
            self.assertRegex(done.stderr, r"^platter: error while writing at byte \d+: No space left on device\n")
            self.assertEqual(os.listdir("small"), [])

    def test_locked_target_is_left_alone(self):
        self.make("a.raw", [(0, os.urandom(MIB))], MIB)
        run("qemu-img", "create", "-q", "-f", "qcow2", "t.qcow2", "2M")
        before = sha("t.qcow2")
        holder = subprocess.Popen(["qemu-io", "t.qcow2"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            holder.stdin.write(b"read 0 512\n")
            holder.stdin.flush()
            holder.stdout.readline()
            for extra in ([], ["-n"]):
                done = platter("convert", *extra, "-O", "qcow2", "a.raw", "t.qcow2", status=1)
                self.assertIn('Failed to get "write" lock', done.stderr)
        finally:
            holder.communicate(b"quit\n")
        self.assertEqual(sha("t.qcow2"), before)

    def test_bad_options_touch_nothing(self):
        self.make("a.raw", [(0, os.urandom(MIB))], MIB)
        self.make("t", [(0, b"precious")], 512)
        before = sha("t")
        for options in (["-o", "cluster_size=3"], ["-o", "nonsense=1"], ["-B", "a.raw"], ["-O", "nonsense"]):
            platter("convert", "-O", "qcow2", *options, "a.raw", "t", status=1)
            self.assertEqual(sha("t"), before, options)

    def test_source_truncated_meanwhile(self):
        with open("a.raw", "wb") as file:
            for _ in range(64):
                file.write(os.urandom(4 * MIB))
        process = subprocess.Popen([PLATTER, "convert", "-m", "1", "-O", "qcow2", "a.raw", "out.qcow2"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not os.path.exists("out.qcow2"):
            time.sleep(0.001)
        os.truncate("a.raw", 1000)
        _, errors = process.communicate(timeout=60)
        self.assertIn(process.returncode, (0, 1), errors)
        self.assertEqual(os.path.exists("out.qcow2"), process.returncode == 0)


class Compare(Scratch):
    def test_statuses(self):
        self.make("a.raw", [(0, os.urandom(3 * MIB))], 8 * MIB)
        shutil.copy("a.raw", "b.raw")
        self.assertEqual(platter("compare", "a.raw", "b.raw").stdout, "Images are identical.\n")
        with open("b.raw", "r+b") as file:
            file.seek(2 * MIB + 700)
            file.write(b"different")
        self.assertEqual(platter("compare", "a.raw", "b.raw", status=1).stdout,
                         f"Content mismatch at offset {2 * MIB + 512}!\n")
        self.assertEqual(platter("compare", "-q", "a.raw", "b.raw", status=1).stdout, "")
        platter("compare", "a.raw", "missing", status=2)
        platter("compare", "a.raw", status=1)

    def test_sizes(self):
        self.make("a.raw", [(0, b"a" * MIB)], 2 * MIB)
        self.make("b.raw", [(0, b"a" * MIB)], 3 * MIB)
        self.assertEqual(platter("compare", "a.raw", "b.raw").stdout,
                         "Warning: Image size mismatch!\nImages are identical.\n")
        self.assertEqual(platter("compare", "-s", "a.raw", "b.raw", status=1).stdout,
                         "Strict mode: Image size mismatch!\n")


if __name__ == "__main__":
    PLATTER = os.path.join(os.path.abspath(sys.argv.pop(1)), "platter")
    unittest.main(verbosity=2)
