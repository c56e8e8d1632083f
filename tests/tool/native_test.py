#!/usr/bin/env python3
"""What platter has beyond the compat names: events for programs, completion, manual pages, exit statuses."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from trouble_cases import CASES  # noqa: E402

BIN = None
TIMEOUT_S = 60


class NativeTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="native-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def run_program(self, *words, status=0, **kwargs):
        kwargs.setdefault("stdout", subprocess.PIPE)
        ended = subprocess.run(list(map(str, words)), cwd=self.directory, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True, timeout=TIMEOUT_S, **kwargs)
        self.assertEqual(ended.returncode, status, ended.stderr)
        return ended

    def platter(self, *words, **kwargs):
        return self.run_program(BIN / "platter", *words, **kwargs)

    def commands(self):
        text = self.platter("--help").stdout
        return re.findall(r"^  ([a-z]\w*) ", text, re.MULTILINE)

    # ---- Events

    def events(self, *words, status=0):
        reading, writing = os.pipe()
        try:
            ended = self.platter(*words[:1], f"--progress-fd={writing}", *words[1:], status=status, pass_fds=(writing,))
        finally:
            os.close(writing)
        with open(reading) as pipe:
            return ended, [json.loads(line) for line in pipe]

    def test_convert_tells_its_progress(self):
        (self.directory / "a.raw").write_bytes(os.urandom(8 << 20))
        ended, events = self.events("convert", "-O", "qcow2", "a.raw", "a.qcow2")
        self.assertEqual(ended.stdout, "")
        self.assertEqual(events[-1], {"event": "finished", "status": 0})
        progress = [event for event in events if event["event"] == "progress"]
        self.assertEqual(len(progress), len(events) - 1)
        self.assertEqual(progress[-1]["done"], progress[-1]["total"])
        self.assertEqual(progress[-1]["percent"], 100)
        self.assertEqual(progress[-1]["seconds-left"], 0)
        self.assertEqual([event["done"] for event in progress], sorted(event["done"] for event in progress))
        for event in progress:
            self.assertEqual(list(event), ["event", "done", "total", "percent", "seconds", "bytes-per-second", "seconds-left"])

    def test_compare_tells_its_progress(self):
        for name in ("a.raw", "b.raw"):
            (self.directory / name).write_bytes(bytes([1]) * (4 << 20))
        ended, events = self.events("compare", "-f", "raw", "-F", "raw", "a.raw", "b.raw")
        self.assertEqual(ended.stdout, "Images are identical.\n")
        self.assertEqual(events[-1], {"event": "finished", "status": 0})
        self.assertEqual(events[-2]["percent"], 100)

    def test_check_and_map_tell_their_progress(self):
        self.platter("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=512", "a.qcow2", "32M")
        self.platter("snapshot", "-c", "one", "a.qcow2")
        for words, total in ((("check", "-q"), None), (("map",), 32 << 20), (("map", "--max-length=1M", "--start-offset=512"), 1 << 20)):
            _, events = self.events(*words, "a.qcow2")
            progress = [event for event in events if event["event"] == "progress"]
            self.assertEqual([event["done"] for event in progress], sorted(event["done"] for event in progress))
            self.assertEqual((progress[-1]["percent"], len(progress)), (100, len(events) - 1))
            self.assertTrue(all(event["done"] < event["total"] for event in progress[:-1]))
            if total:
                self.assertEqual(progress[-1]["total"], total)

    def test_every_command_tells_how_it_ended(self):
        self.assertEqual(self.events("create", "-q", "a.raw", "1M")[1], [{"event": "finished", "status": 0}])
        ended, events = self.events("info", "missing", status=1)
        self.assertEqual([event["event"] for event in events], ["error", "finished"])
        self.assertEqual(ended.stderr, "platter: " + events[0]["message"] + "\n")
        self.assertEqual(events[1]["status"], 1)
        self.assertEqual(self.events("check", "-f", "raw", "a.raw", status=63)[1][-1]["status"], 63)

    def test_descriptors_that_cannot_be_written_are_refused(self):
        for number, why in (("99", "99 is not open for writing"), ("x", "not 'x'"),
                            ("-1", "not '-1'")):
            ended = self.platter("info", "--progress-fd", number, "missing", status=1)
            self.assertIn(why, ended.stderr)
            self.assertEqual(ended.stderr.count("\n"), 1)
        with open("/dev/null", "rb") as reading:
            ended = self.platter("info", f"--progress-fd={reading.fileno()}", "missing", status=1,
                                 pass_fds=(reading.fileno(),))
        self.assertIn("is not open for writing", ended.stderr)

    def test_reader_of_events_that_goes_away_changes_nothing(self):
        reading, writing = os.pipe()
        os.close(reading)
        self.platter("create", "-q", f"--progress-fd={writing}", "a.raw", "1M", pass_fds=(writing,))
        os.close(writing)

    def test_compat_names_have_none_of_this(self):
        for words in (("info", "--progress-fd=1", "x"), ("man",), ("completion", "bash"), ("inspect", "x")):
            self.run_program(BIN / "compat" / "qemu-img", *words, status=1)

    # ---- Results in JSON

    def test_create_in_json(self):
        self.assertEqual(json.loads(self.platter("create", "--output=json", "-f", "qcow2", "a.qcow2", "1000").stdout),
                         {"filename": "a.qcow2", "format": "qcow2", "virtual-size": 1024})
        ended = self.platter("create", "--output=json", "-f", "frob", "b", "1M", status=1)
        self.assertEqual(ended.stdout, "")

    def test_compare_and_resize_in_json(self):
        for name, size in (("a.raw", 1 << 20), ("b.raw", 2 << 20), ("c.raw", 1 << 20)):
            (self.directory / name).write_bytes(bytes(size))
        with open(self.directory / "c.raw", "r+b") as file:
            file.seek(4096)
            file.write(b"x")

        def compare(*words, status):
            return json.loads(self.platter("compare", "--output=json", "-f", "raw", "-F", "raw", *words, status=status).stdout)
        self.assertEqual(compare("a.raw", "a.raw", "-U", status=0), {"identical": True, "sizes": [1 << 20, 1 << 20]})
        self.assertEqual(compare("a.raw", "c.raw", status=1),
                         {"identical": False, "sizes": [1 << 20, 1 << 20], "difference": "content", "offset": 4096})
        self.assertEqual(compare("-s", "a.raw", "b.raw", status=1),
                         {"identical": False, "sizes": [1 << 20, 2 << 20], "difference": "size"})
        self.assertEqual(json.loads(self.platter("resize", "--output=json", "-f", "raw", "a.raw", "3M").stdout),
                         {"filename": "a.raw", "virtual-size": 3 << 20, "virtual-size-before": 1 << 20})
        self.platter("compare", "--output=xml", "a.raw", "b.raw", status=2)
        self.run_program(BIN / "compat" / "qemu-img", "compare", "--output=json", "a.raw", "b.raw", status=1)

    def test_copies_in_json(self):
        (self.directory / "a.raw").write_bytes(bytes([1]) * (1 << 20) + bytes(1 << 20))
        image = {"format": "qcow2", "virtual-size": 2 << 20}
        self.assertEqual(json.loads(self.platter("convert", "--output=json", "-f", "raw", "-O", "qcow2", "a.raw", "b.qcow2").stdout),
                         {"filename": "b.qcow2", **image, "data-bytes": 1 << 20, "zero-bytes": 1 << 20})
        self.assertEqual(json.loads(self.platter("dd", "--output=json", "-f", "raw", "bs=64k", "count=3", "skip=1", "if=a.raw",
                                                 "of=c.raw").stdout),
                         {"filename": "c.raw", "format": "raw", "virtual-size": 2 << 16, "copied-bytes": 2 << 16})
        self.assertEqual(json.loads(self.platter("dd", "--output=json", "-f", "raw", "bs=1M", "skip=9", "if=a.raw",
                                                 "of=d.raw").stdout)["copied-bytes"], 0)
        self.platter("create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "top.qcow2")
        top = {"filename": "top.qcow2", **image}
        self.assertEqual(json.loads(self.platter("commit", "--output=json", "top.qcow2").stdout),
                         {**top, "base": "b.qcow2", "base-virtual-size": 2 << 20, "emptied": True})
        self.assertEqual(json.loads(self.platter("commit", "--output=json", "-d", "top.qcow2").stdout)["emptied"], False)
        self.platter("create", "-q", "-f", "qcow2", "other.qcow2", "2M")
        self.assertEqual(json.loads(self.platter("rebase", "--output=json", "-b", "other.qcow2", "-F", "qcow2", "top.qcow2").stdout),
                         {**top, "backing-filename": "other.qcow2", "backing-filename-format": "qcow2"})
        self.assertEqual(json.loads(self.platter("rebase", "--output=json", "-b", "", "top.qcow2").stdout),
                         {**top, "backing-filename": None})
        self.assertEqual(self.platter("convert", "--output=json", "-O", "frob", "a.raw", "x", status=1).stdout, "")
        for command in ("convert", "dd", "commit", "rebase", "bench"):
            self.run_program(BIN / "compat" / "qemu-img", command, "--output=json", "a", "b", status=1)

    def test_bench_in_json(self):
        self.platter("create", "-q", "a.raw", "1M")
        told = json.loads(self.platter("bench", "--output=json", "-f", "raw", "-c", "20", "-d", "2", "-s", "8k", "-w", "a.raw").stdout)
        seconds, requests, rate = (told.pop(name) for name in ("seconds", "requests-per-second", "bytes-per-second"))
        self.assertEqual(told, {"filename": "a.raw", "format": "raw", "virtual-size": 1 << 20, "operation": "write", "requests": 20,
                                "request-size": 8192, "depth": 2})
        self.assertGreater(seconds, 0)
        self.assertAlmostEqual(requests * seconds, 20, places=3)
        self.assertAlmostEqual(rate / 8192, requests, delta=requests / 100)

    # ---- Trouble

    def test_every_command_is_put_to_trouble(self):
        """trouble_test.py has a case of each that works on images and comes to an end."""
        in_trouble = {case().words[0] for case in CASES.values()}
        self.assertEqual(set(self.commands()) - in_trouble, {"completion", "daemon", "man", "serve"})

    # ---- Exit statuses

    def test_help_lists_exit_statuses(self):
        for command, statuses in (("check", [0, 1, 2, 3, 63]), ("compare", [0, 1, 2, 3, 4]), ("create", [0, 1]), ("inspect", [0, 1])):
            text = self.platter(command, "--help").stdout
            listed = re.findall(r"^  (\d+) +\S", text.split("Exit status:\n")[1], re.MULTILINE)
            self.assertEqual(list(map(int, listed)), statuses)

    # ---- Completion

    def complete(self, line):
        """What bash offers at the end of `line`."""
        script = r"""
            source "$1"
            compopt() { :; }
            line=$2
            # As readline splits it: '=' is a word of its own.
            read -r -a COMP_WORDS <<< "${line//=/ = }"
            [[ $line == *" " || $line == *= ]] && [[ $line != *= ]] && COMP_WORDS+=("")
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _platter
            printf '%s\n' "${COMPREPLY[@]}"
        """
        (self.directory / "script").write_text(self.platter("completion", "bash").stdout)
        ended = self.run_program("bash", "-u", "-c", script, "bash", "./script", line)
        self.assertEqual(ended.stderr, "")
        return ended.stdout.split()

    def test_bash_completes(self):
        self.assertEqual(set(self.commands()) - set(self.complete("platter ")), set())
        self.assertEqual(self.complete("platter conv"), ["convert"])
        self.assertEqual(self.complete("platter info --back"), ["--backing-chain"])
        self.assertEqual(self.complete("platter info --output "), ["human", "json"])
        self.assertEqual(self.complete("platter info --output=j"), ["json"])
        self.assertEqual(self.complete("platter info --output="), ["human", "json"])
        self.assertEqual(self.complete("platter create -f q"), ["qcow2"])
        self.assertIn("cluster_size=", self.complete("platter create -o "))
        self.assertEqual(self.complete("platter info --engine t"), ["threads"])
        self.assertEqual(self.complete("platter inspect --policy o"), ["openstack"])
        self.assertEqual(self.complete("platter completion z"), ["zsh"])
        self.assertEqual(self.complete("platter man inf"), ["info"])
        self.assertIn("--progress-fd", self.complete("platter check -q --"))
        # Files, which bash completes by itself.
        for line in ("platter info ", "platter info a", "platter create -b ", "platter nothing "):
            self.assertEqual(self.complete(line), [])

    def test_every_option_of_every_command_is_offered(self):
        for command in self.commands():
            text = self.platter(command, "--help").stdout
            listed = set(re.findall(r"(?<=[ ,])--[a-z][a-z-]*", text.split("Options")[1])) | set(
                re.findall(r"^  (-\w)", text, re.MULTILINE))
            self.assertEqual(listed - set(self.complete(f"platter {command} -")), set())

    def test_shells_accept_the_scripts(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.directory / shell
            script.write_text(self.platter("completion", shell).stdout)
            if shutil.which(shell):
                ended = self.run_program(shell, "-n", script)
                self.assertEqual((ended.stdout, ended.stderr), ("", ""))

    @unittest.skipIf(shutil.which("fish") is None, "fish is not installed")
    def test_fish_completes(self):
        (self.directory / "a.fish").write_text(self.platter("completion", "fish").stdout)
        def offers(line):
            ended = self.run_program("fish", "--no-config", "-c", f"source a.fish; complete -C '{line}'",
                                     env={**os.environ, "HOME": str(self.directory), "LC_ALL": "C.UTF-8"})
            return [offer.split("\t")[0] for offer in ended.stdout.splitlines()]
        self.assertEqual(offers("platter conv"), ["convert"])
        self.assertIn("--backing-chain", offers("platter info --back"))
        self.assertEqual(offers("platter info --output "), ["human", "json"])
        self.assertEqual(offers("platter completion f"), ["fish"])

    @unittest.skipIf(shutil.which("zsh") is None, "zsh is not installed")
    def test_zsh_loads_its_script(self):
        (self.directory / "_platter").write_text(self.platter("completion", "zsh").stdout)
        # Every specification is taken apart by _arguments when it is called; without a line editor it says so and no more.
        ended = self.run_program("zsh", "-f", "-c", "fpath=($PWD $fpath); autoload -Uz compinit && compinit -D -u -d dump; "
                                 "whence -w _platter; print $_comps[platter]")
        self.assertEqual(ended.stdout.split("\n")[:2], ["_platter: function", "_platter"])

    def test_unknown_shell(self):
        self.assertIn("No completion for 'tcsh'", self.platter("completion", "tcsh", status=1).stderr)

    # ---- Manual pages

    def pages(self):
        self.platter("man", "--output-directory", ".")
        return sorted(self.directory.glob("*.1"))

    def test_there_is_a_page_for_each_command(self):
        names = [page.name for page in self.pages()]
        self.assertEqual(names, sorted(["platter.1"] + [f"platter-{command}.1" for command in self.commands()]))
        self.assertEqual(self.platter("man", "info").stdout, (self.directory / "platter-info.1").read_text())
        self.assertEqual(self.platter("man").stdout, (self.directory / "platter.1").read_text())
        built = BIN.parent / "share" / "man" / "man1"
        self.assertEqual(sorted(page.name for page in built.iterdir()), names)

    def rendered(self, page):
        ended = self.run_program("groff", "-man", "-ww", "-b", "-Tutf8", page)
        self.assertEqual(ended.stderr, "", page)
        return re.sub(r"\x1b\[[\d;]*m|.\x08", "", ended.stdout)

    @unittest.skipIf(shutil.which("groff") is None, "groff is not installed")
    def test_pages_are_good_roff(self):
        for page in self.pages():
            text = self.rendered(page)
            for heading in ("NAME", "SYNOPSIS", "EXIT STATUS"):
                self.assertIn(f"\n{heading}\n", text)
            self.assertNotIn("\\f", text)
        convert = self.rendered("platter-convert.1")
        self.assertIn("--progress-fd=N", convert)
        self.assertIn("cluster_size=size", convert)
        self.assertRegex(self.rendered("platter-check.1"), r"(?m)^ +63 +")

    @unittest.skipIf(shutil.which("mandoc") is None, "mandoc is not installed")
    def test_mandoc_has_no_complaint(self):
        for page in self.pages():
            ended = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True,
                                   timeout=TIMEOUT_S)
            # Pages are made at every build and bear no date.
            complaints = [line for line in ended.stdout.splitlines() if "missing date" not in line]
            self.assertEqual(complaints, [])

    def test_bad_pages(self):
        self.assertIn("Command not found: frob", self.platter("man", "frob", status=1).stderr)
        self.assertIn("Could not write 'nowhere/platter.1'",
                      self.platter("man", "--output-directory=nowhere", status=1).stderr)


if __name__ == "__main__":
    BIN = pathlib.Path(sys.argv.pop(1)).absolute()
    unittest.main()
