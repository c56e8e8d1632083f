#!/usr/bin/env python3
"""Images whose medium fails: each command says what it could not read, leaves what it was reading as
it is, and nothing half-made; without the error it succeeds."""

import hashlib
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

PLATTER = None
TIMEOUT_S = 60


class ReadErrorTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="read-error-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.run_good("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
        self.run_good("io", "-f", "qcow2", "-c", "write -q -P 5 64k 192k", "-c", "write -q -P 6 2M 64k", "a.qcow2")
        self.run_good("convert", "-O", "raw", "a.qcow2", "a.img")
        self.before = self.hashes()

    def run_as_given(self, *words):
        return subprocess.run([PLATTER, *words], cwd=self.directory, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=TIMEOUT_S)

    def run_good(self, *words):
        ended = self.run_as_given(*words)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""), words)
        return ended.stdout

    def hashes(self):
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.directory.iterdir()}

    @staticmethod
    def failing(image, driver, **rule):
        """A name for the image whose requests fail as the rule says."""
        return "json:" + json.dumps({"driver": driver, "file": {
            "driver": "blkdebug", "inject-error": [rule], "image": {"driver": "file", "filename": image}}})

    def check_failure(self, status, *words):
        ended = self.run_as_given(*words)
        self.assertEqual(ended.returncode, status, (words, ended.stdout, ended.stderr))
        self.assertIn("Input/output error", ended.stderr)
        self.assertEqual(self.hashes(), self.before, "a file was changed, made or left behind")

    def test_convert(self):
        raw = self.failing("a.img", "raw", event="read_aio", sector=4096)
        self.check_failure(1, "convert", "-O", "qcow2", raw, "target.qcow2")
        self.check_failure(1, "convert", "-O", "raw", raw, "target.img")
        data = self.failing("a.qcow2", "qcow2", event="read_aio")
        self.check_failure(1, "convert", "-O", "raw", data, "target.img")
        table = self.failing("a.qcow2", "qcow2", event="l2_load")
        self.check_failure(1, "convert", "-O", "qcow2", table, "target.qcow2")
        self.run_good("convert", "-O", "raw", "a.qcow2", "target.img")

    def test_compare(self):
        data = self.failing("a.qcow2", "qcow2", event="read_aio")
        self.check_failure(4, "compare", data, "a.img")
        self.check_failure(4, "compare", "a.img", data)
        table = self.failing("a.qcow2", "qcow2", event="l2_load")
        self.check_failure(3, "compare", table, "a.img")
        self.run_good("compare", "a.qcow2", "a.img")

    def test_check_and_map(self):
        table = self.failing("a.qcow2", "qcow2", event="l2_load")
        self.check_failure(1, "map", table)
        # The refcount table is in the second cluster, the L1 table in the fourth.
        for sector in (128, 384):
            ended = self.run_as_given("check", self.failing("a.qcow2", "qcow2", event="none", sector=sector))
            self.assertEqual(ended.returncode, 1, (sector, ended.stdout, ended.stderr))
            self.assertIn("Input/output error", ended.stdout + ended.stderr)
        self.assertEqual(self.hashes(), self.before)
        self.run_good("check", "a.qcow2")

    def test_an_option_string_says_the_same(self):
        described = ("driver=raw,file.driver=blkdebug,file.image.filename=a.img,"
                     "file.inject-error.0.event=none,file.inject-error.0.iotype=read")
        self.check_failure(1, "convert", "--image-opts", "-O", "raw", described, "target.img")

    def test_a_write_that_fails_leaves_a_sound_image(self):
        for event in ("l2_update", "l2_alloc_write", "cluster_alloc", "refblock_load", "refblock_update_part", "write_aio",
                      "pwritev", "flush_to_disk"):
            rule = f"file.inject-error.0.event={event},file.inject-error.0.once=on"
            ended = self.run_as_given("io", "--image-opts", "-c", "write -q -P 7 3M 64k", "-c", "flush",
                                      "driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2," + rule)
            self.assertIn(ended.returncode, (0, 1), (event, ended.stderr))
            checked = self.run_as_given("check", "a.qcow2")
            self.assertIn(checked.returncode, (0, 3), (event, checked.stdout, checked.stderr))
            self.run_good("io", "-f", "qcow2", "-c", "read -q -P 5 64k 192k", "a.qcow2")


if __name__ == "__main__":
    PLATTER = pathlib.Path(sys.argv.pop()).absolute()
    unittest.main()
