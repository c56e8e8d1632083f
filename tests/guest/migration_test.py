#!/usr/bin/env python3
"""A guest moves from one QEMU to another while it writes and reads: it goes on there, what it was told is durable is on the
disk, and what the device had read into its memory came along.

Both machines have the disk from one back-end, which exports the image twice. The migration is held where half of the guest's
memory has been copied: what the device writes there from then on comes along only where the back-end notes it in its log.

usage: migration_test.py --programs DIRECTORY --cache DIRECTORY --load PROGRAM --backend NAME [--queues N] [--ring split|packed]
"""

import json
import pathlib
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import backends
import crash_test
import guest
from scratch import KIB, MIB, run

LIMIT_S = 400
READ_FILES = 12
READ_FILE_MIB = 4
GO = {"max-bandwidth": 32 * MIB, "downtime-limit": 1}
HOLD = {"max-bandwidth": 32 * KIB}
LET_GO = {"max-bandwidth": 1 << 40, "downtime-limit": 60_000}
ROUNDS = 2  # of reading while it is held

# Reads files that lie on the disk again and again, each time into other pages of its cache; at the end verifies what it has in
# the cache, and then what lies on the disk.
SCRIPT = f"""{crash_test.WRITERS}
mkdir /mnt/read
for i in $(seq {READ_FILES}); do dd if=/dev/urandom of=/mnt/read/$i bs={READ_FILE_MIB}M count=1 2> /dev/null || exit 1; done
cd /mnt/read && sha256sum * > /tmp/sums && cd / && sync || exit 1
verify() {{
  cd /mnt/read && sha256sum -c /tmp/sums > /tmp/again 2>&1 || {{ cat /tmp/again; exit 1; }}
  cd / && echo "verified $1"
}}
reader() {{
  round=0
  while [ ! -e /tmp/hold ]; do
    echo 3 > /proc/sys/vm/drop_caches
    for i in $(seq {READ_FILES}); do cat /mnt/read/$(((i * 5 + round) % {READ_FILES} + 1)) > /dev/null || exit 1; done
    round=$((round + 1))
    echo "round $round"
  done
}}
reader &
reader=$!
echo started
{crash_test.WAIT}
touch /tmp/hold
wait $reader && echo held || exit 1
{crash_test.WAIT}
verify cached
echo 3 > /proc/sys/vm/drop_caches
verify read
{crash_test.WAIT}
{crash_test.STOP}
"""


class Monitor:
    """QMP."""

    def __init__(self, path, limit_s=LIMIT_S):
        deadline = time.monotonic() + limit_s
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(limit_s)
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        self._lines = self._socket.makefile()
        self._lines.readline()
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._lines.close()
        self._socket.close()

    def command(self, command, **arguments):
        self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise AssertionError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise AssertionError(f"{command}: the machine has gone")

    def wait_for_migration(self, test, limit_s=LIMIT_S):
        """Until test(what query-migrate says)."""
        deadline = time.monotonic() + limit_s
        while not test(seen := self.command("query-migrate")):
            if seen.get("status") == "failed" or time.monotonic() > deadline:
                raise guest.GuestFailed(f"the migration did not come to where it was awaited: {seen}")
            time.sleep(0.01)
        return seen


def rounds(lines):
    return sum(line.startswith("round ") for line in lines)


def migrate(source, monitor, destination, incoming):
    """From one machine to the other; what the guest has in its cache was read while the migration was held."""
    monitor.command("migrate-set-parameters", **GO)
    monitor.command("migrate", uri=f"unix:{incoming}")
    monitor.wait_for_migration(lambda seen: seen.get("ram", {}).get("transferred", 0) > 0
                               and seen["ram"]["remaining"] < seen["ram"]["total"] // 2)
    monitor.command("migrate-set-parameters", **HOLD)
    wanted = rounds(source.lines) + ROUNDS
    source.wait_for(lambda lines: rounds(lines) >= wanted)
    source.tell("hold")
    source.wait_for(lambda lines: "held" in lines)
    monitor.command("migrate-set-parameters", **LET_GO)
    moved = monitor.wait_for_migration(lambda seen: seen.get("status") == "completed")
    monitor.command("quit")
    source.wait_for_end()
    print(f"{rounds(source.lines)} rounds of reading; {moved['ram']['dirty-sync-count']} passes over the memory, "
          f"{moved['downtime']} ms of standing still")
    destination.tell("verify")
    destination.wait_for(lambda lines: "verified read" in lines)


def travel(backend, ring, guests, directory):
    """The lines that the guest said, here and there."""
    sides = [directory / "source", directory / "destination"]
    for side in sides:
        side.mkdir()
    incoming, control = directory / "incoming", directory / "monitor"
    source_devices = [*backend.device(ring), "-qmp", f"unix:{control},server=on,wait=off"]
    destination_devices = [*backend.device(ring, export=1), "-incoming", f"unix:{incoming}"]
    with guests.boot(sides[0], SCRIPT, source_devices, backend.queues, LIMIT_S) as source, Monitor(control) as monitor:
        source.wait_for(lambda lines: "started" in lines)
        with guests.boot(sides[1], SCRIPT, destination_devices, backend.queues, LIMIT_S) as destination:
            while not incoming.exists():
                if not destination.running():
                    raise guest.GuestFailed(f"the destination ended\n{destination.said()}")
                time.sleep(0.01)
            crash_test.let_work(source, crash_test.RECORDS_LEAST, crash_test.FILES_LEAST)
            try:
                migrate(source, monitor, destination, incoming)
            except guest.GuestFailed as failed:
                raise guest.GuestFailed(f"{failed}\nat the destination:\n{destination.said()}") from None
            crash_test.let_work(destination, crash_test.RECORDS_LEAST, crash_test.FILES_LEAST)
            destination.tell("stop")
            return source.lines + destination.finish()


def main():
    arguments = backends.arguments(__doc__).parse_args()
    guests = guest.Guests(arguments.cache, [arguments.load])
    with tempfile.TemporaryDirectory(prefix="platter-migration-") as name:
        directory = pathlib.Path(name)
        image = directory / "disk.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", image, crash_test.DISK_BYTES)
        kind = backends.BACKENDS[arguments.backend]
        with kind(arguments.programs, image, directory / "socket", arguments.queues, exports=2) as backend:
            try:
                lines = travel(backend, arguments.ring, guests, directory)
            except guest.GuestFailed as failed:
                sys.exit(str(failed))
            backend.stop()
        troubles = crash_test.judge(directory, lines)
    for trouble in troubles:
        print(trouble)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
