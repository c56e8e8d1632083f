#!/usr/bin/env python3
"""platter inspect refuses every crafted image, for the right reason, and does not lose its head over any."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import crafted

PLATTER = None
# Generous: what is bounded is the work, by the sandbox; this is to notice that it is not.
TIME_LIMIT_S = 20
MEMORY_LIMIT = 64 << 20
SANITIZED_MEMORY_LIMIT = 1 << 30


def is_sanitized(program):
    content = pathlib.Path(program).read_bytes()
    return b"__asan_init" in content or b"__tsan_init" in content


# Runs argv[1:] and prints the largest memory of it and its children; small itself, since what a process had before it
# executed another program counts as well.
MEASURE = """
import os, resource, sys
child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0), (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)])
os.waitpid(child, 0)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""


class CraftedTest(unittest.TestCase):
    def setUp(self):
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="inspect-"))
        self.addCleanup(shutil.rmtree, self.directory)

    def write(self, name, content):
        path = self.directory / name
        path.write_bytes(content)
        return path

    def inspect(self, *words):
        return subprocess.run([PLATTER, "inspect", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=TIME_LIMIT_S, text=True)

    def verdict(self, path, policy, *words):
        ended = self.inspect("--output=json", f"--policy={policy}", *words, path)
        self.assertEqual(ended.stderr, "")
        verdict = json.loads(ended.stdout)
        self.assertEqual(verdict["accepted"], ended.returncode == 0)
        self.assertEqual(verdict["accepted"], verdict["violations"] == [])
        return verdict

    def test_each_is_refused_with_its_reason(self):
        for image in crafted.CRAFTED:
            path = self.write(image.name, image.content)
            words = ["-f", image.opened_as] if image.opened_as else []
            for policy in ("default", "openstack"):
                with self.subTest(image=image.name, policy=policy):
                    verdict = self.verdict(path, policy, *words)
                    if policy in image.policies:
                        found = [v["reason"] for v in verdict["violations"] if v["rule"] == image.rule]
                        self.assertTrue(any(image.reason in reason for reason in found), verdict)
                    else:
                        self.assertTrue(verdict["accepted"], verdict)
            path.unlink()

    def test_sound_ones_are_accepted(self):
        for name, content in crafted.SOUND.items():
            path = self.write(name, content)
            for policy in ("default", "openstack"):
                with self.subTest(image=name, policy=policy):
                    self.assertTrue(self.verdict(path, policy)["accepted"], self.verdict(path, policy))

    def test_reasons_for_people_are_one_line_each(self):
        path = self.write("a\nb", crafted.backed(b"\x1b[2J\n/etc/shadow"))
        ended = self.inspect("-q", path)
        self.assertEqual((ended.returncode, ended.stdout), (1, ""))
        self.assertEqual(ended.stderr.replace("a\nb", "ab").count("\n"), 1)
        self.assertIn("\\x1b[2J\\x0a/etc/shadow", ended.stderr)
        self.assertNotIn("\x1b", ended.stderr)

    def test_what_stands_behind_the_image_is_never_looked_at(self):
        # Names that would hang or fail if they were opened.
        for name in (b"pipe", b"/proc/self/mem", b"missing"):
            path = self.write("image", crafted.backed(name))
            verdict = self.verdict(path, "default")
            self.assertEqual(verdict["references"], [{
                "kind": "backing-file", "name": name.decode(), "form": "absolute" if name[:1] == b"/" else "relative"}])

    def test_costs_are_bounded(self):
        limit = SANITIZED_MEMORY_LIMIT if is_sanitized(PLATTER) else MEMORY_LIMIT
        images = {image.name: image.content for image in crafted.CRAFTED}
        # Everything at once: 65536 snapshots and 65535 bitmaps in a sparse file of 1 TiB.
        image = crafted.qcow2_extension(
            crafted.qcow2_image.BITMAPS, crafted.struct.pack(">IIQQ", 65535, 0, 65535 * 1024, 1 << 39),
            (60, ">I", 65536), (64, ">Q", 1 << 38), (88, ">Q", 1))
        images["everything"] = image
        costs = []
        for name, content in images.items():
            path = self.write("image", content)
            if name == "everything":
                with open(path, "r+b") as file:
                    file.truncate(1 << 40)
            started = time.monotonic()
            measured = subprocess.run([sys.executable, "-ISc", MEASURE, PLATTER, "inspect", path], check=True,
                                      capture_output=True, timeout=TIME_LIMIT_S)
            costs.append((int(measured.stdout), time.monotonic() - started, name))
        peak, slowest = max(costs), max(costs, key=lambda cost: cost[1])
        print(f"{len(images)} images: at most {slowest[1] * 1000:.0f} ms ({slowest[2]}), {peak[0] >> 10} KiB ({peak[2]})")
        self.assertLess(peak[0], limit)

    def test_each_policy_rule(self):
        image = self.write("image", crafted.backed(b"near/base.raw"))
        luks = self.write("luks", crafted.luks())
        flat = self.write("flat", crafted.descriptor(b"monolithicFlat", b'RW 20 FLAT "a-flat.vmdk" 0'))
        cases = [
            ({"backing-file": "relative"}, image, None),
            ({"backing-file": "any"}, image, None),
            ({"backing-file": "none"}, image, "backing-file"),
            ({"backing-file": "any", "formats": ["raw"]}, image, "formats"),
            ({"backing-file": "any", "max-virtual-size": "4M"}, image, None),
            ({"backing-file": "any", "max-virtual-size": (4 << 20) - 1}, image, "max-virtual-size"),
            ({"backing-file": "any", "max-file-size": "1k"}, image, "max-file-size"),
            ({"encryption": False}, luks, "encryption"),
            ({"encryption": ["luks1"]}, luks, None),
            ({"extends": "openstack", "subformats": {}, "extent": "relative"}, flat, None),
            ({"subformats": {"vmdk": ["monolithicFlat"]}}, flat, "extent"),
        ]
        for rules, path, refused_by in cases:
            with self.subTest(rules=rules):
                policy = self.write("policy.json", json.dumps(rules).encode())
                verdict = self.verdict(path, policy)
                self.assertEqual([v["rule"] for v in verdict["violations"]], [refused_by] if refused_by else [])

    def test_relative_names_do_not_climb(self):
        policy = self.write("policy.json", b'{"backing-file": "relative"}')
        for name, accepted in ((b"a", True), (b"a/b..c", True), (b"../a", False), (b"a/../../b", False), (b"/a", False),
                               (b"a:b", False), (b"json:{}", False), (b"a\\..\\b", False)):
            path = self.write("image", crafted.backed(name))
            self.assertEqual(self.verdict(path, policy)["accepted"], accepted, name)

    def test_bad_invocations(self):
        image = self.write("image", crafted.qcow2())
        bad = [((), "Expecting one image file name"), (("missing",), "No such file or directory"),
               ((self.directory,), "neither a regular file nor a block device"),
               (("/dev/null",), "neither a regular file nor a block device"),
               (("-f", "frob", image), "Unknown format 'frob'"), (("--timeout=0", image), "--timeout is a number"),
               (("--policy=nowhere", image), "Could not read the policy 'nowhere'"), (("--output=xml", image), "--output")]
        for words, text in bad:
            ended = self.inspect(*words)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn(text, ended.stderr)
        for text, why in ((b"[]", "JSON object"), (b"{", "at byte"), (b'{"frob": 1}', "'frob' is not a rule"),
                          (b'{"formats": ["frob"]}', "unknown format 'frob'"), (b'{"formats": 1}', "list of strings"),
                          (b'{"max-file-size": "x"}', "must be a size"), (b'{"extent": true}', '"none", "relative"'),
                          (b'{"extends": "x"}', "'extends'"), (b'{"unknown-features": 1}', "true or false"),
                          (b" " * 70000, "too large")):
            ended = self.inspect("--policy", self.write("policy.json", text), image)
            self.assertEqual((ended.returncode, ended.stdout), (1, ""))
            self.assertIn(why, ended.stderr)

    def test_pipe_does_not_hang_it(self):
        subprocess.run(["mkfifo", self.directory / "pipe"], check=True)
        self.assertIn("neither a regular file", self.inspect(self.directory / "pipe").stderr)


if __name__ == "__main__":
    PLATTER = sys.argv.pop(1)
    unittest.main()
