#!/usr/bin/env python3
"""The io shell on zoned disks, and how a person is told what is wrong."""

import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from scratch import run  # noqa: E402

PLATTER = None
DISK = ("driver=raw,file.driver=memory,file.size=1M,file.zoned=host-managed,file.zone-size=256k,"
        "file.zone-capacity=192k,file.conventional-zones=1,file.max-open-zones=1")


class ZonesTest(unittest.TestCase):
    def io(self, *commands, disk=DISK, status=0):
        words = [word for command in commands for word in ("-c", command)]
        return run(PLATTER, "io", "--image-opts", *words, disk, status=status)

    def test_report_prints_each_zone(self):
        self.assertEqual(self.io("write -q 256k 4k", "zone_report 0 9").stdout,
                         "start: 0x0, len 0x200, cap 0x200, wptr 0x200, zcond:0, [type: 1]\n"
                         "start: 0x200, len 0x200, cap 0x180, wptr 0x208, zcond:2, [type: 2]\n"
                         "start: 0x400, len 0x200, cap 0x180, wptr 0x400, zcond:1, [type: 2]\n"
                         "start: 0x600, len 0x200, cap 0x180, wptr 0x600, zcond:1, [type: 2]\n")
        self.assertEqual(self.io("zrp 513k 1").stdout,
                         "start: 0x400, len 0x200, cap 0x180, wptr 0x400, zcond:1, [type: 2]\n")

    def states(self, *commands):
        report = self.io(*commands, "zrp 0 4").stdout
        return [line.split("zcond:")[1].split(",")[0] for line in report.splitlines() if "zcond" in line]

    def test_zones_change_their_state(self):
        self.assertEqual(self.states("zo 256k 256k"), ["0", "3", "1", "1"])
        self.assertEqual(self.states("zap 256k 4k", "zc 256k 256k"), ["0", "4", "1", "1"])
        self.assertEqual(self.states("zf 256k 512k"), ["0", "14", "14", "1"])
        self.assertEqual(self.states("zf 256k 768k", "zrs 512k 256k"), ["0", "14", "1", "14"])
        self.assertEqual(self.states("zone_finish 256k 768k", "zone_reset 0 1M"), ["0", "1", "1", "1"])
        self.assertEqual(self.states("write -q 256k 4k", "write -q 512k 4k"), ["0", "4", "2", "1"])

    def test_append_says_where(self):
        self.assertEqual(self.io("zap -P 7 256k 4k 8k", "zone_append -p 256k 4k", "read -q -P 7 256k 12k").stdout,
                         "After zap done, the append sector is 0x200\nAfter zap done, the append sector is 0x218\n")

    def test_what_cannot_be_is_said_in_a_line(self):
        for command, line in (("zap 0 4k", "zone append failed: Invalid argument"),
                              ("zap 256k 2M", "zone append failed: Input/output error"),
                              ("zap 256k", "bad argument count 1 to zap, expected at least 2 arguments"),
                              ("write 260k 4k", "write failed: Illegal seek"),
                              ("zo 0 256k", "zone open failed: Invalid argument"),
                              ("zo 256k 512k", "zone open failed: Too many references: cannot splice"),
                              ("zc 256k 256k", "zone close failed: Invalid argument"),
                              ("zf 256k 1k", "zone finish failed: Invalid argument"),
                              ("zrs 256k 4M", "zone reset failed: Input/output error"),
                              ("zrp 1M 1", "zone report failed: Invalid argument"),
                              ("zrp x 1", "Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- x")):
            ended = self.io(command, status=1)
            self.assertEqual((ended.stdout + ended.stderr).strip(), line, command)
        ended = self.io("zrp 0 1", disk="driver=memory,size=1M", status=1)
        self.assertEqual(ended.stdout, "zone report failed: Operation not supported\n")
        ended = self.io("zo 256k 256k", disk=DISK + ",read-only=on", status=1)
        self.assertIn("Block node is read-only", ended.stderr)

    def test_options_that_do_not_go_together_are_refused_in_a_line(self):
        for options, what in (("zoned=maybe", "zoned"), ("zone-size=64k", "'zone-size' is for a zoned disk"),
                              ("zoned=host-managed,zone-size=100k", "a power of two"),
                              ("zoned=host-aware,max-append-bytes=4k", "host-aware")):
            ended = self.io("length", disk="driver=memory,size=1M," + options, status=1)
            self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
            self.assertIn(what, ended.stderr)


if __name__ == "__main__":
    PLATTER = sys.argv.pop(1)
    unittest.main()
