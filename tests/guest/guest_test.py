#!/usr/bin/env python3
"""A Linux guest uses a disk that a back-end serves over vhost-user, and finds what it should.

usage: guest_test.py --programs DIRECTORY --cache DIRECTORY --load PROGRAM --backend NAME --queues N --ring split|packed
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import backends
import guest
import scratch
from guest import facts
from scratch import MIB, run, sha

DISK_BYTES = 128 * MIB
SECTOR = 512
LOAD_OPERATIONS = 1500
FEATURE_PACKED = 34
FEATURE_MULTIPLE_QUEUES = 12

LOOK = """
q=/sys/block/vda/queue
for name in size serial ro cache_type; do echo "$name=$(cat /sys/block/vda/$name)"; done
for name in logical_block_size physical_block_size discard_granularity discard_max_bytes write_zeroes_max_bytes write_cache; do
  echo "$name=$(cat $q/$name)"
done
echo "features=$(cat /sys/block/vda/device/features)"
echo "queues=$(ls /sys/block/vda/mq | wc -l)"
"""

CACHE_MODE = """
c=/sys/block/vda/cache_type
echo 'write through' > $c || exit 1
echo "through=$(cat $c) $(cat /sys/block/vda/queue/write_cache)"
dd if=/dev/urandom of=/dev/vda bs=64k count=8 oflag=direct 2> /dev/null || exit 1
echo 'write back' > $c || exit 1
echo "back=$(cat $c) $(cat /sys/block/vda/queue/write_cache)"
"""

# Several writers at once; files of many sizes, overwritten, cut, deleted, some made durable on the way. Every second one
# stays, and its sum with it.
FILE_SYSTEM = """
/tools/mke2fs -q -t ext4 /dev/vda && mount -t ext4 /dev/vda /mnt || exit 1
dd if=/dev/urandom of=/tmp/noise bs=1M count=4 2> /dev/null
writer() {
  mkdir /mnt/$1
  for i in $(seq 1 10); do
    dd if=/tmp/noise of=/mnt/$1/$i bs=$((i * 3571)) skip=$1 count=$((40 + i)) 2> /dev/null || exit 1
    [ $((i % 3)) != 0 ] || dd if=/tmp/noise of=/mnt/$1/$i bs=4k seek=$i count=9 conv=notrunc,fsync 2> /dev/null || exit 1
  done
  rm /mnt/$1/*[13579]
  truncate -s 54321 /mnt/$1/8
}
for w in 1 2 3 4; do writer $w & done
wait
cd /mnt && sha256sum */* > /tmp/sums && cp /tmp/sums /mnt/sums && cd / && umount /mnt || exit 1
/tools/e2fsck -fn /dev/vda > /tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
sed 's/^/sum=/; s/  / /' /tmp/sums
mount -t ext4 -o ro /dev/vda /mnt && cd /mnt && sha256sum -c /tmp/sums > /tmp/again 2>&1 || { cat /tmp/again; exit 1; }
cd / && umount /mnt || exit 1
# What the guest reads from end to end, as a file of its own on the host.
dd if=/dev/vda of=/dev/vdb bs=1M oflag=direct 2> /dev/null || exit 1
"""

DISCARD = """
dd if=/dev/urandom of=/dev/vda bs=1M count=32 oflag=direct 2> /dev/null || exit 1
dd if=/dev/vda bs=1M count=1 iflag=direct 2> /dev/null | sha256sum | sed 's/ .*//; s/^/kept=/'
/tools/blkdiscard -o 1M -l 15M /dev/vda || exit 1
/tools/blkdiscard -z -o 20M -l 4M /dev/vda || exit 1
zero=$(dd if=/dev/zero bs=1M count=4 2> /dev/null | sha256sum)
[ "$(dd if=/dev/vda bs=1M skip=20 count=4 iflag=direct 2> /dev/null | sha256sum)" = "$zero" ] || { echo not zeroed; exit 1; }
[ "$(dd if=/dev/vda bs=1M skip=4 count=4 iflag=direct 2> /dev/null | sha256sum)" = "$zero" ] || { echo not discarded; exit 1; }
"""

FULL = """
dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2> /dev/null
sum=$(sha256sum < /tmp/noise)
dd if=/tmp/noise of=/dev/vda bs=64k conv=fsync 2> /dev/null || exit 1
echo 3 > /proc/sys/vm/drop_caches
[ "$(dd if=/dev/vda bs=1M count=8 iflag=direct 2> /dev/null | sha256sum)" = "$sum" ] || { echo other data; exit 1; }
echo "sum=${sum%% *}"
"""

READ_ONLY = """
echo "ro=$(cat /sys/block/vda/ro)"
dd if=/dev/vda bs=1M iflag=direct 2> /dev/null | sha256sum | sed 's/ .*//; s/^/sum=/'
dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct 2> /dev/null && echo written
/tools/blkdiscard /dev/vda 2> /dev/null && echo discarded
exit 0
"""


class GuestTest(scratch.Scratch):
    guests = None
    backend = None
    programs = None
    queues = 1
    ring = "split"

    def setUp(self):
        if self.ring in self.backend.lacks:
            self.skipTest(f"{self.backend.name}: {self.backend.lacks[self.ring]}")
        super().setUp()
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", DISK_BYTES)

    def in_guest(self, script, image="disk.qcow2", writable=True, devices=()):
        with self.backend(self.programs, image, self.directory / "socket", self.queues, writable) as backend:
            lines = self.guests.run(self.directory, script, [*backend.device(self.ring), *devices], self.queues)
            backend.stop()
        return lines

    def check_image(self):
        run("qemu-img", "check", "-q", "disk.qcow2")

    def test_what_it_sees(self):
        seen = facts(self.in_guest(LOOK + CACHE_MODE))
        self.assertEqual(int(seen["size"]) * SECTOR, DISK_BYTES)
        self.assertEqual(seen["ro"], "0")
        self.assertEqual(seen["cache_type"], self.backend.first_cache_type)
        self.assertEqual(seen["write_cache"], self.backend.first_cache_type)
        self.assertEqual(int(seen["logical_block_size"]), SECTOR)
        self.assertGreaterEqual(int(seen["physical_block_size"]), SECTOR)
        self.assertGreater(int(seen["discard_granularity"]), 0)
        self.assertGreaterEqual(int(seen["discard_max_bytes"]), MIB)
        self.assertGreaterEqual(int(seen["write_zeroes_max_bytes"]), MIB)
        self.assertTrue(seen["serial"])
        self.assertEqual(int(seen["queues"]), self.queues)
        self.assertEqual(seen["features"][FEATURE_PACKED], "1" if self.ring == "packed" else "0")
        self.assertEqual(seen["features"][FEATURE_MULTIPLE_QUEUES], "1" if self.queues > 1 else "0")
        self.assertEqual(seen["through"], "write through write through")
        self.assertEqual(seen["back"], "write back write back")

    def test_file_system(self):
        with open("mirror.raw", "wb") as mirror:
            mirror.truncate(DISK_BYTES)
        drive = ["-drive", "if=none,id=mirror,format=raw,file=mirror.raw", "-device", "virtio-blk-pci,drive=mirror"]
        lines = self.in_guest(FILE_SYSTEM, devices=drive)
        self.check_image()
        run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", "disk.qcow2", "mirror.raw")
        run("qemu-img", "convert", "-O", "raw", "disk.qcow2", "disk.raw")
        run("e2fsck", "-fn", "disk.raw")
        os.mkdir("files")
        run("debugfs", "-R", "rdump / files", "disk.raw")
        sums = [line.removeprefix("sum=").split() for line in lines if line.startswith("sum=")]
        self.assertEqual(len(sums), 4 * 5)
        for expected, name in sums:
            self.assertEqual(sha(f"files/{name}"), expected, name)

    def test_load_then_discard_and_write_zeroes(self):
        threads = 2 * self.queues
        load = f"disk_load random /dev/vda {threads} {LOAD_OPERATIONS} 7 && /tools/blkdiscard /dev/vda || exit 1\n"
        seen = facts(self.in_guest(load + DISCARD))
        self.assertEqual(int(seen["verified"]), LOAD_OPERATIONS)
        self.check_image()
        run("qemu-img", "convert", "-O", "raw", "disk.qcow2", "disk.raw")
        run("truncate", "-s", MIB, "disk.raw")
        self.assertEqual(sha("disk.raw"), seen["kept"])
        # What was discarded is given back.
        taken = json.loads(run("qemu-img", "map", "--output=json", "disk.qcow2").stdout)
        self.assertEqual(sum(piece["length"] for piece in taken if piece["data"]), (32 - 15 - 4) * MIB)

    def test_a_disk_that_is_full_goes_on_when_there_is_space(self):
        if self.backend is not backends.Platter:
            self.skipTest("it has no policies")
        os.mkdir("small")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={16 * MIB}", "tmpfs", "small"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("mounting is not permitted here")
        self.addCleanup(subprocess.run, ["umount", self.directory / "small"], check=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "small/disk.qcow2", DISK_BYTES)
        with open("small/filler", "wb") as file:
            space = os.statvfs("small")
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - 2 * MIB)
        backend = self.backend(self.programs, "small/disk.qcow2", self.directory / "socket", self.queues)
        backend.more_words = ("--werror", "enospc", "--state", "none")
        backend.errors = subprocess.PIPE
        with backend, self.guests.boot(self.directory, FULL, backend.device(self.ring), self.queues) as machine:
            line = backend.first_error()
            self.assertIn("the disk is stopped, as a write has failed: No space left on device", line)
            os.remove("small/filler")
            backend.signal(signal.SIGUSR2)
            self.assertIn("sum", facts(machine.finish()))
            backend.stop()
        run("qemu-img", "check", "-q", "small/disk.qcow2")

    def test_read_only(self):
        run("qemu-img", "resize", "-q", "--shrink", "disk.qcow2", 16 * MIB)
        run("qemu-io", "-c", "write -P 0x5a 1M 3M", "disk.qcow2")
        run("qemu-img", "convert", "-O", "raw", "disk.qcow2", "disk.raw")
        before = sha("disk.qcow2")
        lines = self.in_guest(READ_ONLY, writable=False)
        seen = facts(lines)
        self.assertEqual(seen["ro"], "1")
        self.assertEqual(seen["sum"], sha("disk.raw"))
        self.assertNotIn("written", lines)
        self.assertNotIn("discarded", lines)
        self.assertEqual(sha("disk.qcow2"), before)


def main():
    parser = backends.arguments(__doc__)
    arguments, rest = parser.parse_known_args()
    GuestTest.guests = guest.Guests(arguments.cache, [arguments.load])
    GuestTest.backend = backends.BACKENDS[arguments.backend]
    GuestTest.programs = pathlib.Path(arguments.programs).resolve()
    GuestTest.queues = arguments.queues
    GuestTest.ring = arguments.ring
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
