#!/usr/bin/env python3
"""What a person can do to the program that a script of good commands does not."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = None
TIMEOUT_S = 60


class PersonTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="person-"))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def run_as(self, name, *words, **kwargs):
        kwargs.setdefault("stdout", subprocess.PIPE)
        return subprocess.run([BIN / name, *map(str, words)], cwd=self.directory, stdin=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, **kwargs)

    def platter(self, *words, **kwargs):
        return self.run_as("platter", *words, **kwargs)

    def qemu_img(self, *words, **kwargs):
        return self.run_as("compat/qemu-img", *words, **kwargs)

    def succeeds(self, ended):
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))
        return ended.stdout

    def fails(self, ended, *texts):
        """Exit status 1, and one line on standard error that has every one of the texts."""
        self.assertEqual(ended.returncode, 1, ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        for text in texts:
            self.assertIn(text, ended.stderr)

    # ---- Help

    def test_every_command_has_help(self):
        commands = [line.split()[0] for line in self.succeeds(self.platter("--help")).splitlines()
                    if line.startswith("  ")]
        self.assertIn("create", commands)
        for command in commands:
            text = self.succeeds(self.platter(command, "--help"))
            self.assertTrue(text.startswith(f"Usage: platter {command} "))
            self.assertIn("--reactors", text)

    def test_compat_help_lists_commands_and_formats(self):
        text = self.succeeds(self.qemu_img("--help"))
        self.assertIn("\n  info [--object=OBJECT]", text)
        self.assertRegex(text, r"\nSupported formats:.* qcow2.* raw")

    def test_usage_errors_tell_where_help_is(self):
        ended = self.platter("info")
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(ended.stderr, "platter: Expecting one image file name\n"
                                       "Try 'platter info --help' for more information\n")

    # ---- Output that cannot be written

    def test_full_standard_output_is_an_error(self):
        self.succeeds(self.platter("create", "-q", "a.img", "1M"))
        with open("/dev/full", "w") as full:
            ended = self.platter("info", "a.img", stdout=full)
        self.fails(ended, "Could not write to standard output: No space left on device")

    def test_reader_that_goes_away_is_no_crash(self):
        self.succeeds(self.platter("create", "-q", "a.img", "1M"))
        reading, writing = os.pipe()
        os.close(reading)
        ended = self.platter("info", "a.img", stdout=writing)
        os.close(writing)
        self.fails(ended, "Broken pipe")

    # ---- Which files an image may name

    def make_chain(self):
        for name in ("base", "image", "image/near"):
            (self.directory / name).mkdir()
        self.succeeds(self.qemu_img("create", "-q", "-f", "qcow2", "base/base.qcow2", "1M"))
        backed = ("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b")
        self.succeeds(self.qemu_img(*backed, "../base/base.qcow2", "image/far.qcow2"))
        self.succeeds(self.qemu_img("create", "-q", "-f", "qcow2", "image/near/n.qcow2", "1M"))
        self.succeeds(self.qemu_img(*backed, "near/n.qcow2", "image/close.qcow2"))

    def test_backing_file_elsewhere_is_refused_unless_allowed(self):
        self.make_chain()
        self.fails(self.platter("map", "image/far.qcow2"), "base.qcow2", "policy")
        self.fails(self.platter("info", "--backing-chain", "image/far.qcow2"), "base.qcow2", "policy")
        self.succeeds(self.platter("map", "image/close.qcow2"))
        self.succeeds(self.platter("info", "--backing-chain", "image/close.qcow2"))
        self.succeeds(self.platter("map", "--allow-backing", "base", "image/far.qcow2"))
        self.succeeds(self.platter("map", "--allow-backing", "any", "image/far.qcow2"))
        self.succeeds(self.platter("info", "--backing-chain", "--allow-backing=base", "image/far.qcow2"))
        self.fails(self.platter("map", "--allow-backing", "image", "image/far.qcow2"), "base.qcow2")
        self.succeeds(self.qemu_img("map", "image/far.qcow2"))

    def test_symbolic_link_out_of_the_directory_is_refused(self):
        self.make_chain()
        (self.directory / "image/near/n.qcow2").unlink()
        (self.directory / "image/near/n.qcow2").symlink_to("../../base/base.qcow2")
        self.fails(self.platter("map", "image/close.qcow2"), "n.qcow2", "policy")

    def test_chain_that_loops_is_refused(self):
        for name, backing in (("a", "b"), ("b", "c"), ("c", "a")):
            self.succeeds(self.platter("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2",
                                       "-b", f"{backing}.qcow2", f"{name}.qcow2", "1M"))
        for command in (("map",), ("check",), ("info", "--backing-chain")):
            ended = self.platter(*command, "a.qcow2")
            self.assertEqual(ended.returncode, 1)
            self.assertRegex(ended.stderr, "a.qcow2' creates an infinite loop|refers back to 'a.qcow2'")

    # ---- Files that are not there for us

    @unittest.skipIf(os.geteuid() != 0, "needs another user")
    def test_file_that_may_not_be_read(self):
        self.succeeds(self.platter("create", "-q", "a.img", "1M"))
        os.chmod(self.directory / "a.img", 0o600)
        os.chmod(self.directory, 0o755)
        program = self.directory / "platter"
        shutil.copyfile(BIN / "platter", program)
        os.chmod(program, 0o755)
        ended = subprocess.run([program, "info", "a.img"], cwd=self.directory, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S, user=65534)
        self.fails(ended, "'a.img'", "Permission denied")

    def test_pipe_is_refused_and_not_waited_for(self):
        os.mkfifo(self.directory / "pipe")
        self.fails(self.platter("info", "pipe"), "requires 'pipe' to be a regular file")

    def test_read_only_file_cannot_be_resized(self):
        ended = self.platter("resize", "-f", "raw", "/dev/zero", "1M")
        self.assertEqual(ended.returncode, 1)
        self.assertIn("/dev/zero", ended.stderr)

    # ---- Full disk

    @unittest.skipIf(os.geteuid() != 0, "mounting needs root")
    def test_full_disk_leaves_nothing_behind(self):
        disk = self.directory / "disk"
        disk.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if mounted.returncode != 0:
            self.skipTest("cannot mount here")
        self.addCleanup(subprocess.run, ["umount", disk], check=True)
        for words in (("-f", "qcow2", "-o", "preallocation=full"), ("-f", "raw", "-o", "preallocation=full"),
                      ("-f", "qcow2", "-o", "preallocation=falloc")):
            self.fails(self.platter("create", "-q", *words, "disk/a", "8M"), "disk/a", "No space left on device")
            self.assertEqual(list(disk.iterdir()), [])

    def test_failed_create_leaves_a_bad_target_name_alone(self):
        self.succeeds(self.platter("create", "-q", "a.img", "1M"))
        before = (self.directory / "a.img").stat()
        for words in (("-o", "frob=1"), ("-f", "qcow2", "-o", "cluster_size=3"), ("-f", "qcow2", "-b", "nowhere", "-F", "raw")):
            ended = self.platter("create", "-q", *words, "a.img", "1M")
            self.assertEqual(ended.returncode, 1)
        after = (self.directory / "a.img").stat()
        self.assertEqual((before.st_ino, before.st_mtime_ns, before.st_size), (after.st_ino, after.st_mtime_ns, after.st_size))

    # ---- Ctrl-C

    def test_interrupted_create_removes_its_target_and_says_so(self):
        target = self.directory / "a.img"
        process = subprocess.Popen([BIN / "platter", "create", "-o", "preallocation=full", "a.img", "2G"],
                                   cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not (target.exists() and target.stat().st_blocks > 0):
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=TIMEOUT_S)[1]
        if process.returncode == 0:
            self.skipTest("it was done before it could be interrupted")
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertEqual(said, "platter: interrupted; removed the unfinished 'a.img'\n")
        self.assertFalse(target.exists())

    # ---- Our own options

    def test_engines_and_reactors(self):
        self.succeeds(self.platter("create", "-q", "-f", "qcow2", "a.qcow2", "1G"))
        texts = {self.succeeds(self.platter("map", "--output=json", *words, "a.qcow2"))
                 for words in ((), ("--engine", "threads"), ("--reactors", "3"), ("--engine=threads", "--reactors=1"))}
        self.assertEqual(len(texts), 1)
        self.fails(self.platter("info", "--engine", "steam", "a.qcow2"), "Unknown engine 'steam'")
        for count in ("0", "65", "x", ""):
            self.fails(self.platter("info", f"--reactors={count}", "a.qcow2"), "--reactors is a number from 1 to 64")


if __name__ == "__main__":
    BIN = pathlib.Path(sys.argv.pop(1)).absolute()
    unittest.main()
