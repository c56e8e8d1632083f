#!/usr/bin/env python3
"""platter map --chart and --svg: the totals in the picture are those of the image, and it stays small."""

import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

PLATTER = None
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
MAX_SVG_BYTES = 512 << 10


def parse_size(text):
    number, unit = text.split()
    return float(number) * UNITS[unit]


class PictureTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="picture-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def run_program(self, *words, status=0):
        ended = subprocess.run(list(map(str, words)), cwd=self.directory, capture_output=True, text=True, timeout=120)
        self.assertEqual(ended.returncode, status, ended.stderr)
        return ended

    def chart(self, *words):
        """The legends of the text: of the file and of the guest's view, name to bytes; and the text."""
        text = self.run_program(PLATTER, "map", "--chart", *words).stdout
        legends = []
        for part in text.split("\n\nAs the guest sees it"):
            lines = re.findall(r"^  \S (\S.*?) {2,}([\d.]+ \w+) +[\d.]+%$", part, re.MULTILINE)
            legends.append({name: parse_size(size) for name, size in lines})
        return legends[0], legends[1], text

    def qcow2(self, *commands, options="", size="64M"):
        words = ["-o", options] if options else []
        self.run_program("qemu-img", "create", "-q", "-f", "qcow2", *words, "a.qcow2", size)
        self.write(*commands)

    def write(self, *commands):
        if commands:
            self.run_program("qemu-io", *(word for c in commands for word in ("-c", c)), "a.qcow2")

    def assert_about(self, found, expected):
        self.assertAlmostEqual(found, expected, delta=max(expected * 0.01, 1))

    def test_each_use_is_shown(self):
        self.qcow2("write -P 1 0 4M", "write -z 8M 2M", "write -P 2 16M 1M")
        self.run_program("qemu-img", "snapshot", "-c", "one", "a.qcow2")
        self.write("write -P 3 0 1M")
        self.run_program("qemu-img", "bitmap", "--add", "a.qcow2", "b")
        in_file, in_guest, text = self.chart("a.qcow2")
        kib = 1 << 10
        self.assertEqual(in_file["header"], 64 * kib)
        self.assertEqual(in_file["L1 table"], 64 * kib)
        self.assertEqual(in_file["L2 tables"], 64 * kib)
        self.assertEqual(in_file["refcounts"], 128 * kib)
        self.assertEqual(in_file["snapshot table"], 64 * kib)
        self.assertIn("bitmaps", in_file)
        self.assertEqual(in_file["data"], 5 << 20)
        # What was overwritten, and the snapshot's L1 and L2 table.
        self.assert_about(in_file["only in snapshots"], (1 << 20) + 128 * kib)
        self.assertNotIn("leaked", in_file)
        self.assertEqual(in_guest, {"data": 5 << 20, "zeroes": 2 << 20, "nothing stored": 57 << 20})
        self.assertRegex(text, r"one +5 MiB, 1 MiB of it its own")
        self.assert_about(sum(in_file.values()), (self.directory / "a.qcow2").stat().st_size)

    def test_leaks_and_compressed_clusters(self):
        self.run_program(PLATTER, "create", "-q", "-f", "raw", "a.raw", "8M")
        (self.directory / "a.raw").write_bytes((b"some text, " * 1000000)[:8 << 20])
        self.run_program("qemu-img", "convert", "-c", "-O", "qcow2", "a.raw", "a.qcow2")
        in_file, in_guest, text = self.chart("a.qcow2")
        self.assertEqual(in_guest["compressed"], 8 << 20)
        self.assertIn("compressed", in_file)
        self.assertIn("100.0% compressed", text)
        with open(self.directory / "a.qcow2", "r+b") as file:
            file.seek(48)
            table, = struct.unpack(">Q", file.read(8))
            file.seek(table)
            block, = struct.unpack(">Q", file.read(8))
            file.seek(0, 2)
            end = (file.tell() + 65535) // 65536
            file.truncate((end + 3) * 65536)
            file.seek(block + 2 * end)
            file.write(struct.pack(">HHH", 1, 1, 1))
        in_file, _, _ = self.chart("a.qcow2")
        self.assertEqual(in_file["leaked"], 3 * 65536)

    def test_virtual_machine_state(self):
        # A snapshot with state of a machine: an L1 entry past the end of the disk.
        self.qcow2("write -P 1 0 1M", size="512M")
        data, _, _ = self.chart("a.qcow2")
        self.assertNotIn("VM state", data)
        with open(self.directory / "a.qcow2", "r+b") as file:
            file.seek(24)
            file.write(struct.pack(">Q", 256 << 10))  # the disk is now shorter than what is mapped
        data, guest, _ = self.chart("a.qcow2")
        self.assertEqual(data["VM state"], 768 << 10)
        self.assertEqual(guest, {"data": 256 << 10})

    def test_fragments_are_counted(self):
        self.qcow2("write 0 64k", "write 192k 64k", "write 64k 64k", "write 128k 64k")
        self.assertRegex(self.chart("a.qcow2")[2], r"256 KiB of the guest's 64 MiB have data, in 3 pieces of 85.3 KiB on average")

    def test_raw_and_backed(self):
        with open(self.directory / "a.raw", "wb") as file:
            file.write(b"x" * (1 << 20))
            file.truncate(4 << 20)
        in_file, in_guest, _ = self.chart("-f", "raw", "a.raw")
        self.assertEqual((in_file, in_guest), ({"data": 1 << 20, "not in use": 3 << 20},
                                               {"data": 1 << 20, "nothing stored": 3 << 20}))
        self.run_program(PLATTER, "create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "a.qcow2")
        self.write("write 0 64k")
        _, in_guest, _ = self.chart("a.qcow2")
        self.assertEqual(in_guest["data"], 64 << 10)
        self.assert_about(in_guest["from the backing file"], (4 << 20) - (64 << 10))

    def svg(self, *words):
        self.run_program(PLATTER, "map", "--svg", "a.svg", *words)
        text = (self.directory / "a.svg").read_bytes()
        self.assertLess(len(text), MAX_SVG_BYTES)
        root = xml.etree.ElementTree.fromstring(text)
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        self.assertNotIn(b"href", text)
        self.assertNotIn(b"<script", text)
        return "\n".join(element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text"))

    def test_svg_says_the_same(self):
        self.qcow2("write -P 1 0 4M", "write -z 8M 2M")
        text = self.svg("a.qcow2")
        self.assertIn("data: 4 MiB", text)
        self.assertIn("zeroes: 2 MiB (3.1%)", text)
        printed = self.run_program(PLATTER, "map", "--svg", "-", "a.qcow2").stdout
        self.assertEqual(printed, (self.directory / "a.svg").read_text())

    def test_svg_of_anything_is_small(self):
        # Every cell of every picture has several uses: random clusters of a large disk, with many snapshots.
        self.qcow2(options="cluster_size=512", size="32M")
        for snapshot in range(20):
            self.write(*(f"write -P 1 {(n * 37 + snapshot) % 60000 * 512} 512" for n in range(0, 400, 1 + snapshot)))
            self.run_program("qemu-img", "snapshot", "-c", f"<{snapshot}>", "a.qcow2")
        text = self.svg("a.qcow2")
        self.assertIn("<0>", text)
        self.assertIn("and 4 more", text)
        self.run_program(PLATTER, "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "huge.qcow2", "64G")
        self.svg("huge.qcow2")
        self.run_program(PLATTER, "create", "-q", "empty.raw", "0")
        self.svg("-f", "raw", "empty.raw")

    def test_bad_invocations(self):
        self.qcow2()
        for words, text in ((("--svg", "missing/a.svg"), "Could not write 'missing/a.svg': No such file"),
                            (("--svg", "/dev/full"), "Could not write '/dev/full': No space left"),
                            (("--chart", "--output=json"), "go without"), (("--svg", "x", "-s", "1"), "go without")):
            ended = self.run_program(PLATTER, "map", *words, "a.qcow2", status=1)
            self.assertIn(text, ended.stderr)
            self.assertEqual(ended.stderr.count("\n"), 1)
        self.assertEqual(sorted(path.name for path in self.directory.iterdir()), ["a.qcow2"])
        compat = pathlib.Path(PLATTER).parent / "compat" / "qemu-img"
        self.assertIn("unrecognized option '--chart'", self.run_program(compat, "map", "--chart", "a.qcow2", status=1).stderr)


if __name__ == "__main__":
    PLATTER = pathlib.Path(sys.argv.pop(1)).absolute()
    unittest.main()
