#!/usr/bin/env python3
"""Images with holes are compacted: QEMU finds them sound and reads the same from them and from each of their
snapshots, and the file is as small as what it holds."""

import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

PLATTER = None
MIB = 1 << 20
KINDS = ["cluster_size=64k", "compat=0.10", "cluster_size=4k,refcount_bits=8", "cluster_size=512,refcount_bits=64",
         "lazy_refcounts=on", "cluster_size=16k,extended_l2=on", "cluster_size=64k,compression_type=zstd",
         "cluster_size=1k,preallocation=metadata"]


class CompactTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="compact-")
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(scratch.name)
        self.image = self.directory / "image"

    def run_program(self, *words, expect=0):
        ended = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=120)
        self.assertEqual(ended.returncode, expect, f"{words}: {ended.stdout}{ended.stderr}")
        return ended

    def write(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        self.run_program("qemu-io", "-d", "unmap", "-f", "qcow2", *words, "image")

    def contents(self, snapshots=()):
        views = []
        for snapshot in (None, *snapshots):
            which = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
            self.run_program("qemu-img", "convert", "-f", "qcow2", *which, "-O", "raw", "image", "content")
            views.append((self.directory / "content").read_bytes())
        return views

    def compact(self):
        said = json.loads(self.run_program(PLATTER, "compact", "--output=json", "image").stdout)
        self.assertEqual(said["file-size"], self.image.stat().st_size)
        check = json.loads(self.run_program("qemu-img", "check", "--output=json", "-f", "qcow2", "image").stdout)
        self.assertNotIn("leaks", check)
        self.assertNotIn("corruptions", check)
        return said

    def fill(self, seed):
        chance = random.Random(seed)
        self.write(*(f"write -P {1 + i % 250} {i * 64}k 64k" for i in range(128)))
        self.write(*(f"discard {i * 64}k 64k" for i in range(128) if chance.random() < 0.6))

    def test_holes_are_filled(self):
        for number, options in enumerate(KINDS):
            with self.subTest(options=options):
                self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "image", "8M")
                self.fill(number)
                before = self.contents()
                size = self.image.stat().st_size
                said = self.compact()
                self.assertEqual(said["file-size-before"], size)
                self.assertLess(said["file-size"], size * 3 // 5 if "preallocation" not in options else size + 1)
                self.assertEqual(self.contents(), before)
                self.assertEqual(self.compact()["moved-bytes"], 0)  # there is nothing left to do
                self.write("write -P 77 0 8M")  # and the image goes on
                self.run_program("qemu-img", "check", "-q", "image")

    def test_snapshots_keep_their_content(self):
        for number, options in enumerate(KINDS):
            with self.subTest(options=options):
                self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "image", "8M")
                self.fill(number)
                self.run_program("qemu-img", "snapshot", "-c", "one", "image")
                self.write("write -P 251 1M 3M", "discard 4M 2M")
                self.run_program("qemu-img", "snapshot", "-c", "two", "image")
                self.write("write -P 252 0 2M", "write -P 253 7M 1M")
                self.run_program("qemu-img", "snapshot", "-c", "three", "image")
                self.run_program("qemu-img", "snapshot", "-d", "two", "image")
                self.write("discard 2M 3M")
                before = self.contents(("one", "three"))
                size = self.image.stat().st_size
                self.compact()
                self.assertLessEqual(self.image.stat().st_size, size)
                self.assertEqual(self.contents(("one", "three")), before)
                self.run_program("qemu-img", "snapshot", "-a", "one", "image")
                self.assertEqual(self.contents()[0], before[1])
                self.run_program("qemu-img", "check", "-q", "image")

    def test_compressed_clusters_move(self):
        for kind in ("zlib", "zstd"):
            with self.subTest(compression=kind):
                source = self.directory / "source"
                chance = random.Random(5)
                source.write_bytes(b"".join(
                    bytes([i & 255]) * 30000 + chance.randbytes(35536) for i in range(256)))
                self.run_program("qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "source",
                                 "image")
                self.write(*(f"discard {i * 64}k 64k" for i in range(160)))
                before = self.contents()
                size = self.image.stat().st_size
                self.compact()
                self.assertLess(self.image.stat().st_size, size * 3 // 5)
                self.assertEqual(self.contents(), before)

    def test_what_cannot_be_compacted_is_said(self):
        self.run_program("qemu-img", "create", "-q", "-f", "raw", "image", "1M")
        said = self.run_program(PLATTER, "compact", "-f", "raw", "image", expect=1).stderr
        self.assertEqual(said, "platter: Images of the format 'raw' cannot be compacted\n")
        said = self.run_program(PLATTER, "compact", "nothing", expect=1).stderr
        self.assertIn("nothing", said)
        # A reference count that is too low is damage.
        self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "image", "1M")
        self.write("write -P 1 0 1M", "discard 0 128k")
        with open(self.image, "r+b") as image:
            image.seek(2 * 65536 + 2 * 10)
            image.write(b"\0\0")
        damaged = self.image.read_bytes()
        said = self.run_program(PLATTER, "compact", "image", expect=1).stderr
        self.assertIn("The image is damaged and has to be repaired first: ERROR cluster 10 refcount=0 reference=1", said)
        self.assertEqual(self.image.read_bytes(), damaged)

    def test_leaks_are_let_go_of(self):
        self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "image", "1M")
        self.write("write -P 1 0 1M")
        with open(self.image, "r+b") as image:  # an L2 entry less
            image.seek(4 * 65536)
            image.write(bytes(8 * 4))
        before = self.contents()
        size = self.image.stat().st_size
        self.compact()
        self.assertLess(self.image.stat().st_size, size)
        self.assertEqual(self.contents(), before)


if __name__ == "__main__":
    PLATTER = sys.argv.pop(1)
    unittest.main()
