#!/usr/bin/env python3
"""The back-end is killed and started anew while a guest writes: no error reaches the guest, and nothing is lost that it was
told is durable.

usage: crash_test.py --programs DIRECTORY --cache DIRECTORY --load PROGRAM --backend NAME [--kills N] [--seed N] [--queues N]
    [--ring split|packed]
"""

import pathlib
import random
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import backends
import guest
import scratch
from scratch import MIB, run

DISK_BYTES = 512 * MIB
BLOCK_BYTES = 4096
FILE_SYSTEM_KIB = 96 * 1024
JOURNAL_FIRST = 128 * MIB // BLOCK_BYTES
JOURNAL_BLOCKS = 65536  # disk_load's journal_place() wants a power of two
# What is acknowledged between two kills: enough for tables to be dirty, and for writes to be in flight.
RECORDS_LEAST, RECORDS_MOST = 20, 60
FILES_LEAST, FILES_MOST = 1, 4
LIMIT_S, LIMIT_PER_KILL_S = 60, 15

# Two writers: one through a file system, a file a time, and one that writes records to the disk itself. Both say what is
# durable once they know it.
WRITERS = f"""
/tools/mke2fs -q -t ext4 /dev/vda {FILE_SYSTEM_KIB}k && mount -t ext4 /dev/vda /mnt || exit 1
dd if=/dev/urandom of=/tmp/noise bs=64k count=16 2> /dev/null
files() {{
  i=0
  while [ ! -e /tmp/stop ]; do
    dd if=/tmp/noise of=/mnt/$i bs=4099 skip=$((i % 200)) count=$((i % 7 + 1)) conv=fsync 2> /dev/null || exit 1
    echo "file $i $(sha256sum < /mnt/$i)"
    i=$((i + 1))
  done
}}
disk_load journal /dev/vda {JOURNAL_FIRST} {JOURNAL_BLOCKS} {JOURNAL_BLOCKS} &
journal=$!
files &
files=$!
"""
WAIT = "read -r line < /dev/ttyS1\n"
STOP = """
touch /tmp/stop
kill $journal && wait $files && umount /mnt || exit 1
"""
SCRIPT = f"{WRITERS}echo started\n{WAIT}{STOP}"


def acknowledged(lines, kind):
    return [line.split() for line in lines if line.startswith(kind + " ")]


def let_work(running, records, files):
    """Until so many more are acknowledged."""
    records += len(acknowledged(running.lines, "synced"))
    files += len(acknowledged(running.lines, "file"))
    running.wait_for(lambda lines: len(acknowledged(lines, "synced")) >= records and len(acknowledged(lines, "file")) >= files)


def torment(backend, ring, guests, directory, kills, seed):
    """The lines that a guest said, whose back-end was killed so often."""
    draw = random.Random(seed)
    with guests.boot(directory, SCRIPT, backend.device(ring, reconnect=True), backend.queues,
                     LIMIT_S + kills * LIMIT_PER_KILL_S) as running:
        running.wait_for(lambda lines: "started" in lines)
        for _ in range(kills):
            let_work(running, draw.randint(RECORDS_LEAST, RECORDS_MOST), draw.randint(FILES_LEAST, FILES_MOST))
            backend.kill()
            backend.start()
        let_work(running, RECORDS_LEAST, FILES_LEAST)
        running.tell("stop")
        return running.finish()


def lost_records(image, lines):
    lost = []
    records = [int(words[1]) for words in acknowledged(lines, "synced")]
    with open(image, "rb") as disk:
        for record in records:
            disk.seek((JOURNAL_FIRST + record * 40503 % JOURNAL_BLOCKS) * BLOCK_BYTES)
            if disk.read(BLOCK_BYTES) != struct.pack("<Q", record + 1) * (BLOCK_BYTES // 8):
                lost.append(record)
    return len(records), lost


def lost_files(image, lines, directory):
    lost = []
    files = [words[1:3] for words in acknowledged(lines, "file")]
    target = directory / "files"
    target.mkdir()
    run("debugfs", "-R", f"rdump / {target}", image)
    for name, expected in files:
        found = target / name
        if not found.exists() or scratch.sha(found) != expected:
            lost.append(name)
    return len(files), lost


def judge(directory, lines):
    """What is wrong with the image now."""
    troubles = []
    image, raw = directory / "disk.qcow2", directory / "disk.raw"
    for command in (["qemu-img", "check", image], ["qemu-img", "convert", "-O", "raw", image, raw], ["e2fsck", "-fn", raw]):
        ended = run(*command, status=None)
        if ended.returncode != 0:
            troubles.append(f"{command[0]} {command[1]}: status {ended.returncode}: {(ended.stdout + ended.stderr).strip()[-600:]}")
    for what, (count, lost) in (("records", lost_records(raw, lines)), ("files", lost_files(raw, lines, directory))):
        print(f"{count} {what} acknowledged as durable, {len(lost)} lost")
        if lost:
            troubles.append(f"lost {what}: {lost[:20]}")
    return troubles


def main():
    parser = backends.arguments(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    guests = guest.Guests(arguments.cache, [arguments.load])
    with tempfile.TemporaryDirectory(prefix="platter-crash-") as name:
        directory = pathlib.Path(name)
        image = directory / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", image, DISK_BYTES)
        kind = backends.BACKENDS[arguments.backend]
        with kind(arguments.programs, image, directory / "socket", arguments.queues) as backend:
            try:
                lines = torment(backend, arguments.ring, guests, directory, arguments.kills, arguments.seed)
            except guest.GuestFailed as failed:
                sys.exit(f"after {arguments.kills} kills, seed {arguments.seed}: {failed}")
            backend.stop()
        troubles = judge(directory, lines)
    for trouble in troubles:
        print(trouble)
    print(f"{arguments.kills} kills, seed {arguments.seed}: {'nothing is lost' if not troubles else 'NOT GOOD'}")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
