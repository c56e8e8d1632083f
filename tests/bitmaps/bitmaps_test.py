#!/usr/bin/env python3
"""Dirty bitmaps made, marked and changed by ours and by QEMU on the same image, in turns: after each
step QEMU finds the image sound, and each bitmap has to the bit what a model says. Now and then QEMU
is asked for the bits over NBD, and a writer is killed."""

import json
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "compat"))
import bitmap_bits  # noqa: E402

OURS = None
KINDS = ["cluster_size=64k", "cluster_size=512", "cluster_size=4k,refcount_bits=8", "cluster_size=2M", "lazy_refcounts=on",
         "cluster_size=1k,refcount_bits=64"]
STEPS = 30
SECTOR = 512


class BitmapsTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="bitmaps-")
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(scratch.name)

    def start(self, options, seed, size=3 << 20, backed=False):
        self.random = random.Random(seed)
        self.size = size
        self.bitmaps = {}
        self.done = []
        backing = []
        if backed:
            self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "base", str(size))
            backing = ["-b", "base", "-F", "qcow2"]
        self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, *backing, "image", str(size))

    def run_program(self, *words, expected=0):
        self.done.append(" ".join(words))
        ended = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(ended.returncode, expected, f"{words}: {ended.stdout}")
        return ended.stdout

    def program(self, name):
        return self.random.choice([name, str(OURS / name)])

    # ---- Steps

    def write(self):
        commands = []
        for _ in range(self.random.randint(1, 4)):
            offset = self.random.randrange(self.size // SECTOR) * SECTOR
            length = min(self.random.choice([512, 4096, 65536, 300 * 1024, 2 << 20]), self.size - offset)
            commands += ["-c", f"{self.random.choice(['write', 'write -z', 'write -z -u', 'discard'])} {offset} {length}"]
            for bitmap in self.bitmaps.values():
                if bitmap.enabled:
                    bitmap.mark(offset, length)
        self.run_program(self.program("qemu-io"), "-f", "qcow2", "-d", "unmap", *commands, "image")

    def add(self):
        name = f"b{len(self.done)}" + "x" * self.random.choice([0, 1, 50, 300])
        bitmap = bitmap_bits.Bitmap(512 << self.random.randrange(16), self.random.random() < 0.7)
        self.run_program(self.program("qemu-img"), "bitmap", "--add", *([] if bitmap.enabled else ["--disable"]),
                         "-g", str(bitmap.granularity), "image", name)
        self.bitmaps[name] = bitmap

    def change(self):
        if not self.bitmaps:
            return self.add()
        name = self.random.choice(sorted(self.bitmaps))
        bitmap = self.bitmaps[name]
        action = self.random.choice(["remove", "clear", "enable", "disable", "merge", "merge"])
        words = [f"--{action}"]
        if action == "remove":
            del self.bitmaps[name]
        elif action == "clear":
            bitmap.dirty.clear()
        elif action == "merge":
            other = self.bitmaps[self.random.choice(sorted(self.bitmaps))]
            words.append(next(key for key, value in self.bitmaps.items() if value is other))
            bitmap.merge(other, self.size)
        else:
            bitmap.enabled = action == "enable"
        self.run_program(self.program("qemu-img"), "bitmap", *words, "image", name)
        return None

    def resize(self):
        size = self.random.randrange(1, (6 << 20) // SECTOR) * SECTOR
        self.run_program(self.program("qemu-img"), "resize", "-q", "--shrink", "-f", "qcow2", "image", str(size))
        self.size = size
        for bitmap in self.bitmaps.values():
            bitmap.cut(size)

    def snapshot(self):
        program = self.program("qemu-img")
        self.run_program(program, "snapshot", "-c", "s", "image")
        self.run_program(self.program("qemu-img"), "snapshot", "-d", "s", "image")

    def convert(self):
        cluster = self.random.choice(["512", "4k", "64k", "2M"])
        self.run_program(self.program("qemu-img"), "convert", "--bitmaps", "-O", "qcow2", "-o", f"cluster_size={cluster}", "image", "copy")
        (self.directory / "copy").rename(self.directory / "image")

    def rename_backing(self):
        """The bitmaps' extension and the name of the backing file share the header."""
        name = "b" * self.random.choice([4, 100, 250])
        self.run_program(self.program("qemu-img"), "rebase", "-u", "-b", name, "-F", "raw", "image")
        self.run_program(self.program("qemu-img"), "rebase", "-u", "-b", "", "image")

    # ---- What must hold

    def verify(self):
        self.run_program("qemu-img", "check", "-q", "-f", "qcow2", "image")
        image = bitmap_bits.Image(self.directory / "image")
        found = {}
        for name, flags, granularity, table, entries in image.records():
            self.assertEqual(flags & bitmap_bits.IN_USE, 0, self.done)
            found[name] = (granularity, bool(flags & bitmap_bits.AUTO), image.runs(granularity, table, entries))
        wanted = {name: (b.granularity, b.enabled, b.runs()) for name, b in self.bitmaps.items()}
        self.assertEqual(found, wanted, "\n".join(self.done))

    def verify_over_nbd(self, name):
        server = subprocess.Popen(["qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", str(self.directory / "socket"), "-B", name, "image"],
                                  cwd=self.directory, stdout=subprocess.DEVNULL)
        try:
            while not (self.directory / "socket").exists():
                self.assertIsNone(server.poll())
                time.sleep(0.01)
            options = {"driver": "nbd", "server": {"type": "unix", "path": str(self.directory / "socket")},
                       "x-dirty-bitmap": f"qemu:dirty-bitmap:{name}"}
            # What is dirty is shown as a hole.
            runs = [(run["start"], run["length"]) for run in
                    json.loads(self.run_program("qemu-img", "map", "--output=json", "json:" + json.dumps(options)))
                    if not run["data"]]
        finally:
            server.terminate()
            server.wait()
        bitmap = self.bitmaps[name]
        wanted = [(first * bitmap.granularity, min(count * bitmap.granularity, self.size - first * bitmap.granularity))
                  for first, count in bitmap.runs()]
        self.assertEqual(runs, wanted, "\n".join(self.done))

    def test_both_in_turns(self):
        for number, options in enumerate(KINDS):
            with self.subTest(options=options):
                self.start(options, number)
                for step in range(STEPS):
                    action = self.random.choices(
                        [self.write, self.add, self.change, self.resize, self.snapshot, self.convert, self.rename_backing],
                        [10, 3, 6, 1, 1, 1, 1 if "512" not in options else 0])[0]
                    action()
                    self.verify()
                    if self.bitmaps and step % 8 == 7:
                        self.verify_over_nbd(self.random.choice(sorted(self.bitmaps)))

    def test_a_writer_that_is_killed_leaves_them_inconsistent(self):
        for writer in ("qemu-io", str(OURS / "qemu-io")):
            self.start("cluster_size=4k", 1)
            self.run_program(str(OURS / "qemu-img"), "bitmap", "--add", "image", "records")
            self.run_program(str(OURS / "qemu-img"), "bitmap", "--add", "--disable", "image", "rests")
            self.run_program(writer, "-f", "qcow2", "-c", "write 0 64k", "-c", "sigraise 9", "image", expected=-signal.SIGKILL)
            for reader in ("qemu-img", str(OURS / "qemu-img")):
                info = json.loads(self.run_program(reader, "info", "-U", "--output=json", "image"))
                flags = {b["name"]: b["flags"] for b in info["format-specific"]["data"]["bitmaps"]}
                self.assertEqual(flags["records"], ["in-use", "auto"])
                self.run_program(reader, "bitmap", "--clear", "image", "records", expected=1)
                self.run_program(reader, "resize", "-q", "image", "4M", expected=1)
            self.run_program(str(OURS / "qemu-img"), "bitmap", "--remove", "image", "records")
            self.run_program("qemu-img", "check", "-q", "image")

    def test_reading_and_opening_for_writing_change_nothing(self):
        self.start("cluster_size=64k", 2)
        self.run_program("qemu-img", "bitmap", "--add", "image", "b")
        before = (self.directory / "image").read_bytes()
        self.run_program(str(OURS / "qemu-io"), "-f", "qcow2", "-c", "read 0 64k", "image")
        self.run_program(str(OURS / "qemu-img"), "check", "-q", "image")
        self.assertEqual((self.directory / "image").read_bytes(), before)

    # ---- Damage

    def damaged(self, offset_of, kind, value):
        """An image with bitmaps "a" (recording) and "b", and one field overwritten."""
        self.start("cluster_size=4k", 3, size=1 << 20)
        for name in ("a", "b"):
            self.run_program("qemu-img", "bitmap", "--add", "-g", "512", "image", name)
        self.run_program("qemu-io", "-f", "qcow2", "-c", "write -P 1 64k 64k", "image")
        self.run_program("qemu-img", "bitmap", "--disable", "image", "b")
        image = bitmap_bits.Image(self.directory / "image")
        directory = image.extension()[3]
        table = next(image.records())[3]
        with open(self.directory / "image", "r+b") as file:
            file.seek(offset_of(directory, table))
            file.write(struct.pack(">" + kind, value))

    def fails(self, *words):
        ended = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(ended.returncode, 1, f"{words}: {ended.stdout} {ended.stderr}")
        self.assertLessEqual(len(ended.stderr.splitlines()), 2, ended.stderr)  # an error, and advice
        return ended.stderr

    def test_a_bad_directory_is_refused_by_name_and_spoils_nothing_else(self):
        img, shell = str(OURS / "qemu-img"), str(OURS / "qemu-io")
        for field, kind, value, why in (
                (12, "I", 1 << 4 | 2, "Bitmap 'a' doesn't satisfy the constraints: it has unknown flags"),
                (16, "B", 2, "Bitmap 'a' is of an unknown type"), (16, "B", 0, "Bitmap 'a' is of an unknown type"),
                (17, "B", 8, "its granularity is out of range"), (17, "B", 32, "its granularity is out of range"),
                (18, "H", 0, "Broken bitmap directory"), (18, "H", 2000, "Broken bitmap directory"),
                (20, "I", 0xffffffff, "Broken bitmap directory"), (24, "B", 0, "The name of bitmap '' has a zero byte"), (24, "B", ord("b"), "There is more than one bitmap 'b'"),
                (0, "Q", 512, "its table's offset is invalid"), (0, "Q", 0, "its table's offset is invalid"),
                (8, "I", 0, "its table has no entries or too many"), (8, "I", 0x8000001, "its table has no entries or too many")):
            with self.subTest(field=field, value=value):
                self.damaged(lambda directory, table: directory + field, kind, value)
                self.assertIn(why, self.fails(img, "info", "image"))
                self.assertIn(why, self.fails(img, "bitmap", "--add", "image", "c"))
                self.assertIn(why, self.fails(img, "bitmap", "--clear", "image", "a"))
                self.run_program(shell, "-f", "qcow2", "-c", "read -P 1 64k 64k", "-c", "write -P 2 0 4k", "image")
                self.assertEqual(list(bitmap_bits.Image(self.directory / "image").records()), [])  # not trusted

    def test_a_bad_table_makes_its_bitmap_inconsistent_when_it_would_have_to_record(self):
        img, shell = str(OURS / "qemu-img"), str(OURS / "qemu-io")
        for place, kind, value in (
                (lambda directory, table: directory, "Q", 1 << 40),         # the table beyond the file
                (lambda directory, table: table, "Q", 1 << 40),             # a cluster of bits beyond it
                (lambda directory, table: table, "Q", 0x1001),              # all ones, and in a cluster
                (lambda directory, table: table, "Q", 0x1200),              # between two clusters
                (lambda directory, table: table, "Q", 1 << 60 | 0x1000),    # reserved bits
                (lambda directory, table: directory + 8, "I", 2)):          # two entries, where one is enough
            with self.subTest(value=value):
                self.damaged(place, kind, value)
                self.fails(img, "bitmap", "--merge", "a", "image", "b")
                self.run_program(shell, "-f", "qcow2", "-c", "read -P 1 64k 64k", "-c", "write -P 2 0 4k", "image")
                flags = {name: flags for name, flags, *_ in bitmap_bits.Image(self.directory / "image").records()}
                self.assertEqual(flags, {"a": bitmap_bits.IN_USE | bitmap_bits.AUTO, "b": 0})
                self.run_program(img, "bitmap", "--remove", "image", "a")
                self.run_program(img, "bitmap", "--add", "--merge", "b", "image", "a")


if __name__ == "__main__":
    OURS = pathlib.Path(sys.argv.pop(1)).absolute()
    unittest.main()
