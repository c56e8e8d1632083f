#!/usr/bin/env python3
"""Images with holes are compacted: QEMU finds them sound and reads the same from them and from each of their
snapshots, and the file is as small as what it holds."""

import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from scratch import in_memory  # noqa: E402

PLATTER = None
MIB = 1 << 20
KINDS = ["cluster_size=64k", "compat=0.10", "cluster_size=4k,refcount_bits=8", "cluster_size=512,refcount_bits=64",
         "lazy_refcounts=on", "cluster_size=16k,extended_l2=on", "cluster_size=64k,compression_type=zstd",
         "cluster_size=1k,preallocation=metadata"]


# An encrypted image, as every program is told of it.
SECRET = ("--object", "secret,id=key,data=open sesame")
UNLOCKED = "driver=qcow2,file.filename=image,encrypt.key-secret=key"
LUKS = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10"
CRYPTO_EXTENSION = 0x0537be77


class CompactTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="compact-", dir=in_memory(256))
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(scratch.name)
        self.image = self.directory / "image"

    def run_program(self, *words, expect=0):
        ended = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=120)
        self.assertEqual(ended.returncode, expect, f"{words}: {ended.stdout}{ended.stderr}")
        return ended

    def the_image(self, encrypted=False):
        """The words by which a program is told which image is meant."""
        return (*SECRET, "--image-opts", UNLOCKED) if encrypted else ("-f", "qcow2", "image")

    def write(self, *commands, encrypted=False):
        words = [word for command in commands for word in ("-c", command)]
        self.run_program("qemu-io", "-d", "unmap", *words, *self.the_image(encrypted))

    def contents(self, snapshots=(), encrypted=False):
        views = []
        for snapshot in (None, *snapshots):
            which = ["-l", f"snapshot.name={snapshot}"] if snapshot else []
            self.run_program("qemu-img", "convert", *which, "-O", "raw", *self.the_image(encrypted), "content")
            views.append((self.directory / "content").read_bytes())
        return views

    def compact(self, encrypted=False):
        said = json.loads(self.run_program(PLATTER, "compact", "--output=json", *self.the_image(encrypted)).stdout)
        self.assertEqual(said["file-size"], self.image.stat().st_size)
        check = json.loads(self.run_program("qemu-img", "check", "--output=json", *self.the_image(encrypted)).stdout)
        self.assertNotIn("leaks", check)
        self.assertNotIn("corruptions", check)
        return said

    def fill(self, seed, encrypted=False):
        chance = random.Random(seed)
        self.write(*(f"write -P {1 + i % 250} {i * 64}k 64k" for i in range(128)), encrypted=encrypted)
        holes = [i for i in range(128) if chance.random() < 0.6]
        self.write(*(f"discard {i * 64}k 64k" for i in holes), encrypted=encrypted)

    def create_encrypted(self, options):
        self.run_program(PLATTER, "create", "-q", "-f", "qcow2", *SECRET, "-o", f"{options},{LUKS}", "image", "8M")

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

    def test_streams_that_run_into_one_another_go_one_by_one(self):
        for kind in ("zlib", "zstd"):
            with self.subTest(compression=kind):
                source = self.directory / "source"
                chance = random.Random(6)
                source.write_bytes(b"".join(
                    bytes([i & 255]) * 45536 + chance.randbytes(20000) for i in range(256)))
                self.run_program("qemu-img", "convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "source",
                                 "image")
                # Many holes, none of which is as long as what hangs together at the end.
                self.write(*(f"discard {i * 64}k 64k" for i in range(192) if i % 8 < 6))
                self.run_program("qemu-img", "snapshot", "-c", "one", "image")
                self.write("discard 15M 512k")
                before = self.contents(("one",))
                size = self.image.stat().st_size
                said = self.compact()
                self.assertLess(said["file-size"], size * 17 // 20)
                self.assertEqual(self.contents(("one",)), before)
                self.write("write -P 77 0 16M")
                self.run_program("qemu-img", "check", "-q", "image")

    def test_encrypted_images_are_encrypted_anew(self):
        for number, options in enumerate(["cluster_size=64k", "cluster_size=4k,refcount_bits=8", "cluster_size=2M",
                                          "cluster_size=16k,extended_l2=on", "compat=0.10"]):
            with self.subTest(options=options):
                self.create_encrypted(options)
                self.fill(number, encrypted=True)
                self.run_program("qemu-img", "snapshot", *SECRET, "--image-opts", "-c", "one", UNLOCKED)
                self.write("write -P 251 1M 3M", "discard 4M 2M", encrypted=True)
                self.run_program("qemu-img", "snapshot", *SECRET, "--image-opts", "-c", "two", UNLOCKED)
                self.write("write -P 252 0 2M", encrypted=True)
                self.run_program("qemu-img", "snapshot", *SECRET, "--image-opts", "-d", "two", UNLOCKED)
                before = self.contents(("one",), encrypted=True)
                size = self.image.stat().st_size
                said = self.compact(encrypted=True)
                self.assertLessEqual(self.image.stat().st_size, size)
                if "2M" not in options:
                    self.assertGreater(said["moved-bytes"], 0)
                self.assertEqual(self.contents(("one",), encrypted=True), before)
                self.assertEqual(self.compact(encrypted=True)["moved-bytes"], 0)
                self.write("write -P 77 0 8M", encrypted=True)
                self.run_program("qemu-img", "check", "-q", *SECRET, "--image-opts", UNLOCKED)

    def test_an_encryption_header_moves(self):
        self.create_encrypted("cluster_size=64k")
        self.write("write -P 1 0 8M", "discard 0 5M", encrypted=True)  # a hole that is long enough
        self.move_encryption_header_to_the_end()
        self.run_program(PLATTER, "check", "-q", "-r", "all", "image")
        before = self.contents(encrypted=True)
        place, _ = self.encryption_header()
        self.compact(encrypted=True)
        self.assertLess(self.encryption_header()[0], place)
        self.assertEqual(self.contents(encrypted=True), before)

    def encryption_header(self):
        """Its offset, and where in the image that stands."""
        image = self.image.read_bytes()
        at, = struct.unpack_from(">I", image, 100)
        while True:
            kind, length = struct.unpack_from(">II", image, at)
            self.assertNotEqual(kind, 0)
            if kind == CRYPTO_EXTENSION:
                return struct.unpack_from(">Q", image, at + 8)[0], at + 8
            at += 8 + (length + 7) // 8 * 8

    def move_encryption_header_to_the_end(self):
        image = bytearray(self.image.read_bytes())
        offset, field = self.encryption_header()
        length, = struct.unpack_from(">Q", image, field + 8)
        image += bytes(-len(image) % 65536)
        struct.pack_into(">Q", image, field, len(image))
        image += image[offset:offset + length]
        image += bytes(-len(image) % 65536)
        self.image.write_bytes(image)

    def test_bitmaps_move_and_stay_what_they_are(self):
        for options in ["cluster_size=64k", "cluster_size=512", "cluster_size=4k,data_file=data"]:
            with self.subTest(options=options):
                self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "image", "8M")
                self.fill(3)
                for name in ("on", "off"):
                    self.run_program("qemu-img", "bitmap", "--add", "-g", "512", "image", name)
                self.write("write -P 3 1M 1M", "write -P 4 7M 512")
                self.run_program("qemu-img", "bitmap", "--disable", "image", "off")
                self.write("discard 0 1M", "discard 2M 4M")
                before, bitmaps, dirty = self.contents(), self.bitmaps(), self.dirty("on")
                size = self.image.stat().st_size
                self.compact()
                if "data_file" not in options:
                    self.assertLess(self.image.stat().st_size, size)
                self.assertEqual(self.contents(), before)
                self.assertEqual(self.bitmaps(), bitmaps)
                self.assertEqual(self.dirty("on"), dirty)
                self.assertEqual(self.compact()["moved-bytes"], 0)
                self.write("write -P 5 7680k 64k")  # recorded, and stored again
                self.assertNotEqual(self.dirty("on"), dirty)
                self.run_program("qemu-img", "check", "-q", "image")

    def bitmaps(self):
        info = json.loads(self.run_program("qemu-img", "info", "--output=json", "-f", "qcow2", "image").stdout)
        return info["format-specific"]["data"]["bitmaps"]

    def dirty(self, name):
        """The bits of a bitmap: which bytes QEMU finds when it merges it into one of an empty image."""
        self.run_program("qemu-img", "create", "-q", "-f", "qcow2", "bits", "8M")
        self.run_program("qemu-img", "bitmap", "--add", "-g", "512", "bits", "copy")
        self.run_program("qemu-img", "bitmap", "--merge", name, "-b", "image", "-F", "qcow2", "bits", "copy")
        return self.bitmap_bytes("bits")

    def bitmap_bytes(self, name):
        """The bits of the one bitmap that an image has, as they lie in its file."""
        image = (self.directory / name).read_bytes()
        at, = struct.unpack_from(">I", image, 100)
        while struct.unpack_from(">I", image, at)[0] != 0x23852875:
            at += 8 + (struct.unpack_from(">I", image, at + 4)[0] + 7) // 8 * 8
        directory, = struct.unpack_from(">Q", image, at + 8 + 16)
        table, entries = struct.unpack_from(">QI", image, directory)
        places = struct.unpack_from(f">{entries}Q", image, table)
        return [image[place:place + 65536] if place > 1 else place for place in places]

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
