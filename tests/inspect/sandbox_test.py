#!/usr/bin/env python3
"""What the inspecting process may do: seen from outside with strace, and by misbehaving in it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import crafted
from crafted_test import is_sanitized

PLATTER = None
# Once it is locked in; a sanitizer's own are let through beside.
MAY_CALL = {"pread64", "write", "brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "exit_group", "getrandom",
            "rt_sigprocmask", "sigaltstack", "gettid", "getpid", "futex", "clock_gettime"}
SANITIZERS_MAY_CALL = {"sched_yield", "nanosleep", "clock_nanosleep", "pipe2", "close", "rt_sigaction", "prctl",
                       "sched_getaffinity", "process_vm_readv"}
# A leak check stops threads with ptrace, which strace has already taken.
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
OPENS = re.compile(r"^(open|openat|openat2|socket|connect|accept|execve|execveat|clone|clone3|fork|vfork|pidfd_open|"
                   r"mknod|creat|stat|newfstatat|statx|readlink|access|faccessat)\w*$")


class SandboxTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="sandbox-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def traced(self, path):
        """The calls of the process that inspects, in order."""
        trace = self.directory / "trace"
        subprocess.run(["strace", "-ff", "-o", trace, PLATTER, "inspect", "-q", path], stdin=subprocess.DEVNULL,
                       capture_output=True, timeout=120, env=ENVIRONMENT)
        files = sorted(self.directory.glob("trace.*"), key=lambda file: int(file.suffix[1:]))
        # A thread sanitizer has a thread of its own; what inspects is what enters the sandbox.
        children = [text for text in (file.read_text() for file in files[1:]) if "PR_SET_SECCOMP" in text]
        for file in files:
            file.unlink()
        self.assertEqual(len(children), 1, "one process inspects")
        lines = [re.match(r"(\w+)\((.*)$", line) for line in children[0].splitlines()]
        return [(match.group(1), match.group(2)) for match in lines if match]

    @unittest.skipIf(shutil.which("strace") is None, "strace is not installed")
    def test_nothing_is_opened_besides_the_image(self):
        sample = [image for index, image in enumerate(crafted.CRAFTED) if index % 4 == 0]
        wanted = [image for image in crafted.CRAFTED if image.rule in ("backing-file", "data-file", "extent", "parent")]
        for image in {image.name: image for image in sample + wanted}.values():
            with self.subTest(image=image.name):
                path = self.directory / "image"
                path.write_bytes(image.content)
                calls = self.traced(path)
                sanitized = is_sanitized(PLATTER)
                # A thread sanitizer starts its own thread anew in a process that was forked.
                opened = [(name, rest) for name, rest in calls if OPENS.match(name)
                          and not (sanitized and name == "clone3" and "CLONE_THREAD" in rest)]
                self.assertEqual(opened, [])
                locked = next(i for i, (name, rest) in enumerate(calls) if name == "prctl" and "PR_SET_SECCOMP" in rest)
                before = calls[:locked]
                self.assertTrue(any(name == "prctl" and "NO_NEW_PRIVS" in rest for name, rest in before))
                for limit in ("CPU", "FSIZE", "CORE", "NPROC") + (() if sanitized else ("NOFILE", "AS", "DATA")):
                    self.assertTrue(any(f"RLIMIT_{limit}, {{" in rest for _, rest in before), limit)
                # Nothing of the image is read before the door is shut.
                self.assertFalse(any(name == "pread64" for name, _ in before))
                self.assertLessEqual({name for name, _ in calls[locked + 1:]},
                                     MAY_CALL | (SANITIZERS_MAY_CALL if sanitized else set()))
                read = {rest.split(",")[0] for name, rest in calls[locked + 1:] if name == "pread64"}
                self.assertEqual(len(read), 1)

    def disturbed(self, disturbance, *words):
        """Inspects a sound image while reading from it is disturbed."""
        path = self.directory / "image"
        path.write_bytes(crafted.qcow2())
        ended = subprocess.run(["strace", "-f", "-o", "/dev/null", "-P", path, "-e", "trace=pread64", "-e",
                                f"inject=pread64:{disturbance}", PLATTER, "inspect", *words, path],
                               capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        said = [line for line in ended.stderr.splitlines() if line.startswith("platter: ")]
        self.assertEqual(len(said), 1, ended.stderr)
        return said[0].removeprefix(f"platter: Could not inspect '{path}': ")

    @unittest.skipIf(shutil.which("strace") is None, "strace is not installed")
    def test_a_file_that_does_not_answer_is_given_up(self):
        self.assertEqual(self.disturbed("delay_enter=4000000", "--timeout=1"), "It took too long to inspect")

    @unittest.skipIf(shutil.which("strace") is None, "strace is not installed")
    def test_a_process_that_leaves_the_rules_is_killed_and_said_to_be(self):
        # The call is exchanged for one that does not exist, which the sandbox does not let through.
        self.assertIn("The inspecting process was killed: Bad system call", self.disturbed("error=EIO"))

    def test_a_large_hole_costs_nothing(self):
        path = self.directory / "image"
        path.write_bytes(b"")
        os.truncate(path, 1 << 40)
        ended = subprocess.run([PLATTER, "inspect", path], capture_output=True, text=True, timeout=60)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))


if __name__ == "__main__":
    PLATTER = sys.argv.pop(1)
    unittest.main()
