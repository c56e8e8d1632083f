#!/usr/bin/env python3
"""Snapshots, repairs and amendments made by ours and by QEMU on the same image, in turns: after each
step QEMU finds the image sound, and it reads as it must."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

OURS = None
QEMU = "qemu-img"
KINDS = ["cluster_size=64k", "compat=0.10", "cluster_size=4k,refcount_bits=8", "cluster_size=512", "cluster_size=2M",
         "lazy_refcounts=on", "refcount_bits=64"]


class SnapshotTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="snapshots-")
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(scratch.name)

    def run_program(self, *words):
        ended = subprocess.run(words, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, timeout=60)
        self.assertEqual(ended.returncode, 0, f"{words}: {ended.stdout}")

    def change(self, program, *words):
        self.run_program(program, *words)
        self.run_program(QEMU, "check", "-q", "image")

    def write(self, *commands):
        words = [word for command in commands for word in ("-c", command)]
        self.run_program("qemu-io", "-f", "qcow2", *words, "image")
        self.run_program(QEMU, "check", "-q", "image")

    def content(self):
        self.run_program(QEMU, "convert", "-f", "qcow2", "-O", "raw", "image", "content")
        return (self.directory / "content").read_bytes()

    def make(self, options, backed):
        backing = []
        if backed:
            self.run_program(QEMU, "create", "-q", "-f", "qcow2", "base", "4M")
            self.run_program("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 3M", "base")
            backing = ["-b", "base", "-F", "qcow2"]
        self.run_program(QEMU, "create", "-q", "-f", "qcow2", "-o", options, *backing, "image", "4M")
        self.write("write -P 1 0 1M", "write -P 2 2M 100k", "discard 2M 32k")

    def test_snapshots_of_both_live_together(self):
        for number, options in enumerate(KINDS):
            with self.subTest(options=options):
                self.make(options, backed=number % 2 == 1)
                first = self.content()
                self.change(OURS, "snapshot", "-c", "one", "image")
                self.write("write -P 3 64k 300k", "write -P 4 3M 512k", "discard 0 64k")
                second = self.content()
                self.change(QEMU, "snapshot", "-c", "two", "image")
                self.change(OURS, "snapshot", "-c", "three", "image")
                self.write("write -P 5 0 2M")
                self.change(OURS, "snapshot", "-a", "one", "image")
                self.assertEqual(self.content(), first)
                self.write("write -P 6 1M 2M")
                self.change(OURS, "snapshot", "-d", "one", "image")
                self.change(OURS, "snapshot", "-a", "two", "image")
                self.assertEqual(self.content(), second)
                self.change(QEMU, "snapshot", "-a", "three", "image")
                self.change(OURS, "snapshot", "-d", "three", "image")
                self.change(QEMU, "snapshot", "-d", "two", "image")
                self.assertEqual(self.content(), second)
                self.write("write -P 7 0 4M")

    def test_counts_of_every_width(self):
        self.make("cluster_size=4k", backed=False)
        content = self.content()
        for bits in (1, 64, 2, 32, 8, 4, 16):
            self.change(OURS, "amend", "-o", f"refcount_bits={bits}", "image")
            self.assertEqual(self.content(), content)
        self.change(OURS, "snapshot", "-c", "one", "image")
        self.change(OURS, "amend", "-o", "refcount_bits=2", "image")
        self.write("write -P 8 0 4M")
        self.change(OURS, "snapshot", "-a", "one", "image")
        self.assertEqual(self.content(), content)

    def test_down_and_up_again(self):
        for backed in (False, True):
            self.make("lazy_refcounts=on", backed=backed)
            self.write("write -z 64k 256k")
            content = self.content()
            self.change(OURS, "amend", "-o", "compat=0.10", "image")
            self.assertEqual(self.content(), content)
            self.change(OURS, "amend", "-o", "compat=1.1,refcount_bits=8,lazy_refcounts=on", "image")
            self.assertEqual(self.content(), content)

    def test_counts_that_were_wiped_out_are_found_again(self):
        self.make("cluster_size=4k", backed=False)
        self.change(OURS, "snapshot", "-c", "one", "image")
        self.write("write -P 8 0 512k")
        content = self.content()
        with open(self.directory / "image", "r+b") as image:
            image.seek(48)
            table = int.from_bytes(image.read(8), "big")
            image.seek(table)
            block = int.from_bytes(image.read(8), "big")
            image.seek(block)
            image.write(bytes(4096))
        self.change(OURS, "check", "-q", "-r", "all", "image")
        self.assertEqual(self.content(), content)
        self.change(OURS, "snapshot", "-a", "one", "image")


if __name__ == "__main__":
    OURS = str(pathlib.Path(sys.argv.pop(1)).absolute())
    unittest.main()
