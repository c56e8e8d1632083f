"""A directory of a test's own, and programs run in it."""

import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import time
import unittest

KIB = 1 << 10
MIB = 1 << 20
TIMEOUT_S = 250


def in_memory(mib):
    """For tests that wait for the disk most of the time and ask nothing of it: the directory of a file system in memory that
    has room for that much and as much again, or None: that of all other scratch files."""
    directory = "/dev/shm"
    available = re.search(r"^MemAvailable: *(\d+) kB", pathlib.Path("/proc/meminfo").read_text(), re.M)
    if not available or not os.access(directory, os.W_OK):
        return None
    return directory if min(shutil.disk_usage(directory).free, int(available[1]) * KIB) >= 2 * mib * MIB else None


def sha(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(*words, status=0, **keywords):
    """Runs a program and has it exit with this status (None: any); what it said is text."""
    keywords.setdefault("stdout", subprocess.PIPE)
    keywords.setdefault("stdin", subprocess.DEVNULL)
    ended = subprocess.run([str(word) for word in words], stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, **keywords)
    if status is not None and ended.returncode != status:
        raise AssertionError(f"{words}: exit status {ended.returncode}, not {status}\n{ended.stdout}{ended.stderr}")
    return ended


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it does not come to be")
        time.sleep(0.01)


def wait_until_unlocked(*names):
    """What a killed program had in flight keeps the locks of its files for an instant after its parent has heard of its end."""
    deadline = time.monotonic() + TIMEOUT_S
    for name in names:
        with open(name, "r+b") as file:
            wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            while struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_OFD_GETLK, wanted))[0] != fcntl.F_UNLCK:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{name} is still locked")
                time.sleep(0.01)


class Scratch(unittest.TestCase):
    """Each test runs in a directory of its own, self.directory, which is the current one."""

    MEMORY_MIB = None  # a class that sets it has its directory in memory, if this much is there

    def setUp(self):
        parent = in_memory(self.MEMORY_MIB) if self.MEMORY_MIB else None
        scratch = tempfile.TemporaryDirectory(prefix=f"platter-{type(self).__name__.lower()}-", dir=parent,
                                              ignore_cleanup_errors=True)
        self.addCleanup(scratch.cleanup)
        self.directory = pathlib.Path(scratch.name)
        before = os.getcwd()
        os.chdir(self.directory)
        self.addCleanup(os.chdir, before)

    def make(self, name, pieces, size):
        """A file of this size with pieces of data: (offset, bytes)."""
        with open(name, "wb") as file:
            file.truncate(size)
            for offset, data in pieces:
                file.seek(offset)
                file.write(data)

    def left(self):
        return set(os.listdir("."))
