"""Programs that serve a disk at a UNIX socket while something is measured."""

import subprocess
import sys
import time

READY_LIMIT_S = 30
STOP_LIMIT_S = 10


def listens(socket):
    with open("/proc/net/unix") as table:
        return any(" 00010000 " in line and line.rstrip("\n").endswith(" " + socket) for line in table)


def wait_for_socket(process, socket, name):
    deadline = time.monotonic() + READY_LIMIT_S
    while not listens(socket):
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"bench: {name} does not listen")
        time.sleep(0.005)


def stop(process):
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:  # qemu-storage-daemon with an iothread, now and then
        process.kill()
        process.wait()
