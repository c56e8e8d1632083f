#!/usr/bin/env python3
"""Every command in trouble: killed or interrupted, on a full disk, with reads and writes that fail.

Each time: one line says what failed and why, or the command dies of its signal; what it read is the same
to the byte; what it was making is not there; what it was changing is sound; and when the trouble is over
the same command does its work.

Most of the trouble is made at a chosen call of the program (file_trouble.cc), one run for each of some
places between its first call and its last; the rest by a file system that is really full, and by blkdebug.

usage: trouble_test.py BIN_DIRECTORY FILE_TROUBLE_LIBRARY CASE
       trouble_test.py --list
"""

import errno
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from scratch import KIB, MIB, TIMEOUT_S, run, sha  # noqa: E402
from trouble_cases import CASES  # noqa: E402

BIN = None
LIBRARY = None
CASE = None
ALL_CALLS = "rwstauc"
# What of these fails must fail the command. Letting go of space is advice, in and at the end of a
# file, and what is read may be read for advice: there the result tells.
VITAL_CALLS = "ws"
NOT_CLEARED = re.compile(r"\AWARNING: .*Could not clear what is left of the old header: [^\n]*\n\Z")


# What may stand beside the error.
BESIDES = ("platter: Removed the half-made '", "WARNING: ", "Could not open backing image.")


def places(count, most):
    """At most so many of 1..count, the ends among them."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (most - 1)) for step in range(most)})


class TroubleTest(unittest.TestCase):
    """The images are made once; every run finds them as they were made."""

    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory(prefix="platter-trouble-")
        cls.addClassCleanup(scratch.cleanup)
        cls.directory = pathlib.Path(scratch.name)
        cls.addClassCleanup(os.chdir, os.getcwd())
        os.mkdir(cls.directory / "here")
        os.chdir(cls.directory / "here")
        cls.case = CASES[CASE]()
        cls.case.prepare()
        shutil.copytree(".", "../pristine")
        cls.case.before()
        cls.names = set(os.listdir("."))
        cls.sources = {name: sha(name) for name in cls.names - set(cls.case.changes)}
        cls.images = {name: sha(name) for name in cls.case.changes}
        cls.output = None  # of the first run without trouble

    def setUp(self):
        os.chdir(self.directory / "here")
        self.restore()

    # ---- Running it

    def words(self, image=None):
        if image is None:
            image = self.case.image or ""
        return [word.replace("IMAGE", image) for word in self.case.words]

    def program(self, words, trouble=None, engine=True, **keywords):
        """With trouble: its variables without their prefix."""
        environment = dict(os.environ)
        if trouble is not None:
            environment["LD_PRELOAD"] = LIBRARY
            environment.update({f"TROUBLE_{name}": str(value) for name, value in trouble.items()})
        ours = ["--engine=threads", "--reactors=1"] if engine else []
        return run(BIN + "/platter", words[0], *ours, *words[1:], status=None, env=environment, **keywords)

    def count_calls(self, calls):
        """How many calls of these kinds a run without trouble has."""
        self.restore()
        self.reset_count()
        ended = self.program(self.words(), {"CALLS": calls, "AT": 0, "COUNT": "../count"})
        self.assert_done(ended)
        return self.counted()

    def reset_count(self):
        with open("../count", "wb") as file:
            file.write(bytes(8))

    def counted(self):
        with open("../count", "rb") as file:
            count, = struct.unpack("=q", file.read())
        return count

    def restore(self):
        """Everything as it was in the beginning."""
        for name in os.listdir("."):
            if name not in self.names:
                os.remove(name)
        for name in self.case.changes:
            shutil.copy(f"../pristine/{name}", name)

    # ---- Judging it

    def is_untouched(self):
        return all(sha(name) == before for name, before in self.images.items())

    def assert_sources_same(self):
        self.assertEqual({name: sha(name) for name in self.sources}, self.sources, "a source was changed")

    def assert_done(self, ended):
        self.assertEqual(ended.returncode, 0, ended.stdout + ended.stderr)
        self.assert_sources_same()
        if self.case.same_output:
            type(self).output = self.output or ended.stdout
            self.assertEqual(ended.stdout, self.output)
        self.case.done()

    def assert_nothing_lost(self, target_may_stay=False):
        """After trouble; a target that is there is a whole one."""
        self.assert_sources_same()
        new = set(os.listdir(".")) - self.names
        self.assertLessEqual(new, {self.case.makes} - {None}, "something was left behind")
        if new and not target_may_stay:
            self.case.done()
        if not self.is_untouched():
            self.case.sound()

    def assert_repeatable(self):
        """The trouble is over."""
        if not self.case.is_done() and self.case.can_be_done():
            self.assert_done(self.program(self.words(), engine=False))

    def assert_said(self, ended, reasons):
        """One line that says what failed and why."""
        self.assertIn(ended.returncode, self.case.failure_statuses, ended.stdout + ended.stderr)
        said = ended.stderr
        if self.case.told_on_stdout:
            said += "".join(line + "\n" for line in ended.stdout.splitlines() if "failed" in line)
        lines = [line for line in said.splitlines() if not line.startswith(BESIDES)]
        if self.case.judged_by_reports or self.case.told_on_stdout:
            self.assertTrue(any(reason in line for line in lines for reason in reasons), said + ended.stdout)
        else:
            self.assertEqual(len(lines), 1, said)
            if any(line.startswith("WARNING: ") and line.endswith(tuple(reasons)) for line in said.splitlines()):
                return  # it says what could not be had because of that
            self.assertRegex(lines[0], r"^platter: \S.*: (" + "|".join(map(re.escape, reasons)) + ")$")

    # ---- Signals

    def stop(self, number, most):
        if self.case.in_sandbox:
            self.stop_soon(number)
            return
        count = self.count_calls(ALL_CALLS)
        self.assertGreater(count, 0)
        for at in places(count, most):
            with self.subTest(signal=number, at=f"{at} of {count}"):
                self.restore()
                ended = self.program(self.words(), {"CALLS": ALL_CALLS, "AT": at, "SIGNAL": int(number)})
                # At its end the work may be done before the signal is seen.
                self.assertIn(ended.returncode, (-number, 0), ended.stderr)
                if ended.returncode == 0:
                    self.assert_done(ended)
                if not self.case.judged_by_reports:
                    self.assertLessEqual(ended.stderr.count("\n"), 1, ended.stderr)
                self.assert_nothing_lost(target_may_stay=number == signal.SIGKILL)
                self.assert_repeatable()

    def stop_soon(self, number):
        """Where calls cannot be counted: after some time."""
        for delay_ms in (0, 4, 8, 16, 32):
            with self.subTest(signal=number, delay_ms=delay_ms):
                with subprocess.Popen([BIN + "/platter", *self.words()], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
                    time.sleep(delay_ms / 1000)
                    process.send_signal(number)
                    # Both pipes end when the last process that has them is gone.
                    process.communicate(timeout=TIMEOUT_S)
                self.assertIn(process.returncode, (-number, 0))
                self.assert_nothing_lost()
                self.assert_repeatable()

    def test_killed(self):
        self.stop(signal.SIGKILL, 6)

    def test_interrupted(self):
        self.stop(signal.SIGINT, 4)

    def test_terminated(self):
        self.stop(signal.SIGTERM, 2)

    def test_progress_is_told_when_asked(self):
        if not self.case.has_progress:
            return
        count = self.count_calls(ALL_CALLS)
        for at in places(count, 3):
            with self.subTest(at=f"{at} of {count}"):
                self.restore()
                ended = self.program(self.words(), {"CALLS": ALL_CALLS, "AT": at, "SIGNAL": int(signal.SIGUSR1)})
                self.assertRegex(ended.stderr, r"^    \(\d+\.\d\d/100%\)\n$")
                self.assert_done(ended)

    # ---- Calls that fail

    def fail_calls(self, error, calls, lasts, most):
        count = self.count_calls(calls)
        for at in places(count, most):
            with self.subTest(error=errno.errorcode[error], calls=calls, at=f"{at} of {count}", lasts=lasts):
                self.restore()
                self.reset_count()
                trouble = {"CALLS": calls, "AT": at, "ERROR": error, "COUNT": "../count", **({"LASTS": 1} if lasts else {})}
                ended = self.program(self.words(), trouble)
                # Requests that come together may go down as fewer calls than they did the last time.
                met = self.counted() >= at
                if ended.returncode == 0 and NOT_CLEARED.search(ended.stderr):
                    # The new header counts by then, and says all that there is to say.
                    self.case.done()
                elif ended.returncode == 0 and not (met and set(calls) <= set(VITAL_CALLS)):
                    self.assert_done(ended)
                else:
                    self.assert_said(ended, [os.strerror(error)])
                self.assert_nothing_lost()
                self.assert_repeatable()

    def test_read_fails(self):
        self.fail_calls(errno.EIO, "r", False, 4)

    def test_write_fails(self):
        self.fail_calls(errno.EIO, "w", False, 4)
        self.fail_calls(errno.EIO, "t", False, 2)
        self.fail_calls(errno.EIO, "s", False, 3)

    def test_allocation_fails(self):
        self.fail_calls(errno.EIO, "a", False, 3)

    def test_no_space_for_good(self):
        self.fail_calls(errno.ENOSPC, "wa", True, 3)

    # ---- A disk that is full

    def test_full_disk(self):
        if not self.case.makes and not self.case.changes:
            self.check_full_output()
            return
        os.mkdir("../disk")
        size = sum(os.stat(name).st_blocks * 512 for name in self.names) + 16 * MIB
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", "../disk"], stderr=subprocess.DEVNULL)
        if mounted.returncode == 0:
            self.addCleanup(subprocess.run, ["umount", self.directory / "disk"], check=True)
            self.addCleanup(os.chdir, self.directory / "here")
            shutil.copytree(".", "../disk", dirs_exist_ok=True)
            os.chdir("../disk")
        # Where mounting is not permitted files may not grow, as on a disk that is full.
        failures = sum(self.fill_up(left, mounted.returncode == 0) for left in (0, 96 * KIB, 384 * KIB))
        if self.case.needs_space:
            self.assertGreater(failures, 0, "it never was in need of space")

    def fill_up(self, left, mounted):
        """Runs it with so many bytes left; 1: it failed."""
        limit = None
        self.restore()
        if mounted:
            with open("filler", "wb") as file:
                space = os.statvfs(".")
                os.posix_fallocate(file.fileno(), 0, max(space.f_bavail * space.f_frsize - left, 1))
        else:
            most = max([os.stat(name).st_size for name in self.case.changes], default=0) + left

            def limit():
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with self.subTest(left=left):
            ended = self.program(self.words(), engine=False, **({"preexec_fn": limit} if limit else {}))
            if mounted:
                os.remove("filler")
            if ended.returncode == 0:
                self.assert_done(ended)
            else:
                self.assert_said(ended, [os.strerror(errno.ENOSPC if mounted else errno.EFBIG)])
                self.assert_nothing_lost()
            self.assert_repeatable()
            return int(ended.returncode != 0)
        return 0

    def check_full_output(self):
        with open("/dev/full", "w") as full:
            ended = self.program(self.words(), engine=False, stdout=full)
        self.assertNotEqual(ended.returncode, 0)
        self.assertEqual(ended.stderr, "platter: Could not write to standard output: No space left on device\n")
        self.assert_sources_same()

    # ---- Below a filter that fails

    def fail_requests(self, **rule):
        if not self.case.image:
            return 0
        description = "json:" + json.dumps({"driver": self.case.format, "file": {
            "driver": "blkdebug", "inject-error": [rule], "image": {"driver": "file", "filename": self.case.image}}})
        with self.subTest(rule=rule):
            self.restore()
            ended = self.program(self.words(description), engine=False)
            if ended.returncode == 0:
                self.assert_done(ended)
            else:
                self.assert_said(ended, [os.strerror(rule.get("errno", errno.EIO))])
            self.assert_nothing_lost()
            self.assert_repeatable()
            return int(ended.returncode != 0)
        return 0

    def test_requests_fail(self):
        failures = self.fail_requests(event="none", iotype="read")
        failures += self.fail_requests(event="l2_load", iotype="read")
        failures += self.fail_requests(event="none", iotype="read", sector=0)
        if self.case.image:
            self.assertGreater(failures, 0)
        if self.case.changes and self.case.image_is_written:
            failures = self.fail_requests(event="none", iotype="write")
            failures += self.fail_requests(event="none", iotype="write", once=True, errno=errno.ENOSPC)
            failures += self.fail_requests(event="none", iotype="flush")
            self.assertGreater(failures, 1)


if __name__ == "__main__":
    if sys.argv[1] == "--list":
        print(" ".join(CASES))
        sys.exit()
    BIN, LIBRARY, CASE = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
