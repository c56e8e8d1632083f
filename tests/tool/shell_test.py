#!/usr/bin/env python3
"""The io shell on a terminal: its line is edited, its history comes back, and the terminal is left as it was."""

import os
import pty
import re
import select
import signal
import sys
import termios
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from scratch import Scratch, run  # noqa: E402

PLATTER = None
PROMPT = "platter io> "
TIMEOUT_S = 30
UP, DOWN, RIGHT, LEFT = "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D"
BACKSPACE, TAB, ENTER = "\x7f", "\t", "\r"
HOME, END, KILL_LINE, INTERRUPT, END_OF_FILE = "\x01", "\x05", "\x15", "\x03", "\x04"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *words, environment):
        self.master, slave = pty.openpty()
        self.slave = slave  # kept open, to see how the program leaves it
        self.before = termios.tcgetattr(slave)
        self.said = ""
        self.process = os.fork()
        if self.process == 0:
            os.setsid()
            os.dup2(slave, 0)
            os.dup2(slave, 1)
            os.dup2(slave, 2)
            # The first terminal that a session's leader opens controls it: signals come from its keys.
            os.close(os.open(os.ttyname(slave), os.O_RDWR))
            os.execvpe(words[0], words, environment)

    def type(self, *keys):
        for key in keys:
            os.write(self.master, key.encode())

    def read_until(self, text):
        """What is said up to this text, the text included; it is gone then."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.said:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                raise AssertionError(f"{text!r} did not come, but {self.said!r}")
            self.said += os.read(self.master, 4096).decode()
        at = self.said.index(text) + len(text)
        piece, self.said = self.said[:at], self.said[at:]
        return piece

    def wait_for_prompt(self):
        """What is said up to the prompt. Then the line is being edited: before, keys are the terminal's own affair."""
        piece = self.read_until(PROMPT)
        deadline = time.monotonic() + TIMEOUT_S
        while termios.tcgetattr(self.slave)[3] & termios.ICANON and time.monotonic() < deadline:
            time.sleep(0.001)
        return piece

    def wait(self):
        """The exit status, or minus the signal."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.01)
            if ready:
                self.said += os.read(self.master, 4096).decode()
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.process = None
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it does not end: {self.said!r}")

    def close(self):
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.master)
        os.close(self.slave)


class ShellTest(Scratch):
    def sanitizer_options(self):
        """libedit never frees what it keeps of a function that was added to it; to see that it is libedit's, the
        sanitizer has to unwind what has no frame pointers."""
        suppressions = self.directory / "suppressions"
        suppressions.write_text("leak:libedit\n")
        return {"ASAN_OPTIONS": "fast_unwind_on_malloc=0", "LSAN_OPTIONS": f"suppressions={suppressions}:print_suppressions=0"}

    def setUp(self):
        super().setUp()
        run(PLATTER, "create", "-q", "-f", "qcow2", "a.qcow2", "3M")
        environment = {**os.environ, "TERM": "xterm", "HOME": str(self.directory), **self.sanitizer_options()}
        self.terminal = Terminal(PLATTER, "io", "-f", "qcow2", "a.qcow2", environment=environment)
        self.addCleanup(self.terminal.close)
        self.terminal.wait_for_prompt()

    def answer(self, *keys):
        """What a line is answered with, up to the next prompt."""
        self.terminal.type(*keys, ENTER)
        return self.terminal.read_until("\n") and self.terminal.wait_for_prompt()

    def assert_ends(self, status):
        self.assertEqual(self.terminal.wait(), status, self.terminal.said)
        after = termios.tcgetattr(self.terminal.slave)
        self.assertEqual(after, self.terminal.before, "the terminal is not as it was")

    def test_arrows_bring_lines_back(self):
        self.assertIn("3 MiB", self.answer("length"))
        self.assertIn("not found", self.answer("frob"))
        self.assertIn('"frob" not found', self.answer(UP))
        self.assertIn("3 MiB", self.answer(UP, UP))
        self.assertIn("3 MiB", self.answer(UP, UP, DOWN))

    def test_line_is_edited(self):
        self.assertIn("3 MiB", self.answer("lenXgth", LEFT, LEFT, LEFT, BACKSPACE))
        self.assertIn("3 MiB", self.answer("ength", HOME, "l", END))
        self.assertIn("3 MiB", self.answer("nonsense", KILL_LINE, "length"))
        self.assertIn("3 MiB", self.answer("lengh", LEFT, "t", RIGHT))

    def test_names_are_completed(self):
        self.assertIn("3 MiB", self.answer("len" + TAB))
        self.assertIn("wrote 512/512", self.answer("writ" + TAB, " 0 512"))

    def test_end_of_file_ends_it(self):
        self.terminal.type(END_OF_FILE)
        self.assert_ends(0)
        self.assertTrue(self.terminal.said.endswith("\r\n"), self.terminal.said)

    def test_end_of_file_does_not_end_a_line(self):
        self.terminal.type("lengthX", LEFT, END_OF_FILE)  # deletes what is under the cursor
        self.assertIn("3 MiB", self.answer())

    def test_quit_ends_it(self):
        self.terminal.type("quit", ENTER)
        self.assert_ends(0)

    def test_interrupt_ends_it_and_leaves_the_terminal(self):
        self.terminal.type("writ", INTERRUPT)
        self.assert_ends(-signal.SIGINT)

    def test_failure_is_the_exit_status(self):
        self.assertTrue(re.search("failed|not found", self.answer("frob")))
        self.terminal.type(END_OF_FILE)
        self.assert_ends(1)

    def test_interrupt_while_a_command_runs(self):
        self.terminal.type("sleep 20000", ENTER)
        self.terminal.read_until("\n")
        self.terminal.type(INTERRUPT)
        self.assert_ends(-signal.SIGINT)


if __name__ == "__main__":
    PLATTER = os.path.abspath(sys.argv.pop(1))
    unittest.main()
