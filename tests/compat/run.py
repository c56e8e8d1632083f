#!/usr/bin/env python3
"""Runs each case of a table with the reference program and with ours, in twin directories, and
compares what they print, how they exit and what they leave behind.

A case may name a difference that is accepted, with the reason; it fails when that difference is gone.
"""

import argparse
import concurrent.futures
import difflib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

import bitmap_bits
import cases
import cases_bitmaps  # noqa: F401, adds to cases.CASES
import cases_cache_cleaning  # noqa: F401, adds to both tables
import cases_crypto  # noqa: F401, adds to cases.CASES and cases_shell.CASES
import cases_copy  # noqa: F401, adds to cases.CASES
import cases_img  # adds to cases.CASES
import cases_secret  # noqa: F401, adds to cases.CASES
import cases_blkdebug  # adds to cases_shell.CASES
import cases_shell
import cases_overlaps  # noqa: F401, adds to cases_shell.CASES
import cases_snapshot_names  # noqa: F401, adds to both tables
import cases_subclusters  # noqa: F401, adds to both tables
import cases_vm_state  # noqa: F401, adds to cases_shell.CASES
import fixtures
import peers
import sparse_files

TIMEOUT_S = 60
REFERENCE_ATTEMPTS = 20

# What may differ from run to run, by name; the first is applied to every case.
RULES = {
    "disk size": [
        (re.compile(r"^disk size: .*$", re.M), "disk size: N"),
        (re.compile(r'"actual-size": \d+'), '"actual-size": N'),
    ],
    "progress": [  # how many steps are shown depends on how the work is cut
        (re.compile(r"(    \(\d+\.\d\d/100%\)\r)+"), "PROGRESS "),
    ],
    "luks": [  # keys and salts are drawn, iterations measured
        (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
        (re.compile(r'("?(?:iters|master key iters|master-key-iters)"?): \d+'), r"\1: N"),
        (re.compile(r"PBKDF iterations \d+ larger"), "PBKDF iterations N larger"),
    ],
    "seconds": [
        (re.compile(r"completed in \d+\.\d+ seconds"), "completed in N seconds"),
    ],
    "icount": [
        (re.compile(r'^ *"icount": \d+,\n', re.M), ""),
    ],
    "figures": [  # of qemu-io: time and rates
        (re.compile(r"(, 1 ops; ).*$", re.M), r"\1FIGURES"),
        (re.compile(r"^(\d+,1,)[\d:.]+,[\d.]+,[\d.]+$", re.M), r"\1FIGURES"),
    ],
    "usage": [
        (re.compile(r"^map  --", re.M), "map --"),
        # -r of later versions, for registered memory: accepted, and so in the line
        (re.compile(r"(\[-(?:abCq|Cq|bcCfnq|Cfq|Ciq|Cfiq))r"), r"\1"),
        # of later versions, too
        (re.compile(r"^zone_\w+ .*\n", re.M), ""),
    ],
    "prompts": [  # a request that runs beside the prompt may end before it or after it
        (re.compile(r"qemu-io> "), ""),
    ],
    "node": [  # names that were made up
        (re.compile(r"#block\d+"), "#block"),
    ],
    "date": [
        (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
        (re.compile(r'"date-n?sec": \d+'), '"date": N'),
    ],
}


def normalise(text, rules):
    for rule in ("disk size", *rules):
        for pattern, replacement in RULES.get(rule, ()):
            text = pattern.sub(replacement, text)
    if "sorted" in rules:  # what ends first is anybody's guess
        text = "".join(sorted(text.splitlines(True)))
    return text


class LockHolder:
    """A qemu-io that has the image open, and so locked, while it lives."""

    def __init__(self, directory, image, writing):
        words = ["qemu-io", "-f", "qcow2" if image.endswith(".qcow2") else "raw", image]
        if not writing:
            words.insert(1, "-r")
        self.process = subprocess.Popen(words, cwd=directory, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.process.stdin.write("length\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def release(self):
        self.process.communicate("quit\n", timeout=TIMEOUT_S)


def own_environment(**more):
    return {**os.environ, **more}


def words_of(case):
    return shlex.split(case.command)


def images_needed(case, available):
    needed = set()
    text = case.command + " " + " ".join(case.needs) + " " + (case.lock or "")
    for name in available:
        if re.search(r"(?<![\w.-])" + re.escape(name) + r"(?![\w])", text):
            needed.add(name)
            needed.update(fixtures.DEPENDS.get(name, []))
    return needed


def run_side(case, program, environment, directory, store, available):
    (directory / "sub").mkdir(parents=True)
    for name in images_needed(case, available):
        sparse_files.copy(store / name, directory / name)
    holder = None
    if case.lock:
        holder = LockHolder(directory, case.lock, case.lock_writing)
    try:
        # By its bare name: some messages begin with whatever name the program was called by.
        ended = subprocess.run([pathlib.Path(program).name, *words_of(case)], executable=shutil.which(program), cwd=directory, input=(case.script or "").encode(),
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=TIMEOUT_S,
                               env=environment(LC_ALL="C", TZ="UTC"))
    except subprocess.TimeoutExpired:
        return {"stdout": "", "stderr": "", "status": f"still running after {TIMEOUT_S} s\n"}
    finally:
        if holder:
            holder.release()
    return {
        "stdout": normalise(ended.stdout.decode(errors="replace"), case.rules),
        "stderr": normalise(ended.stderr.decode(errors="replace"), case.rules),
        "status": f"exit status {ended.returncode}\n",
    }


def files_below(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def image_facts(reference, directory, name, rules):
    """What QEMU says of an image: its description, and whether it is sound."""
    def ask(*words):
        return subprocess.run([reference, *words], cwd=directory, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
    info = normalise(ask("info", "--output=json", name).stdout, rules)
    check = ask("check", name)
    bitmaps = bitmap_bits.describe(directory / name) if name.endswith(".qcow2") else ""
    return f"{name}: {info}check: exit status {check.returncode}\n{bitmaps}"


def compare_images(reference, theirs, ours, name, rules, has_data_file):
    """Of an image whose data is in another file, named from the working directory, a copy is compared."""
    if "luks" in rules and name.endswith((".luks", ".qcow2")):
        driver, prefix = ("luks", "") if name.endswith(".luks") else ("qcow2", "encrypt.")
        names = [f"driver={driver},{prefix}key-secret=s,file.filename={directory / name}" for directory in (theirs, ours)]
        return subprocess.run([reference, "compare", "--object", "secret,id=s,data=abc", "--image-opts", *names],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)
    names = [theirs / name, ours / name]
    if has_data_file:
        names = [directory / (name + ".copy") for directory in (theirs, ours)]
        for directory, copy in zip((theirs, ours), names):
            subprocess.run([reference, "convert", "-O", "qcow2", name, copy], cwd=directory, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=TIMEOUT_S)
    compared = subprocess.run([reference, "compare", *names], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=TIMEOUT_S)
    if "Could not open backing file" not in compared.stdout:
        return compared
    # A backing file that is not there says nothing of the images themselves; their facts name it.
    alone = [json.dumps({"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(image)}})
             for image in names]
    return subprocess.run([reference, "compare", *("json:" + image for image in alone)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S)


def compare_files(reference, theirs, ours, rules):
    """The two directories' files as two texts, equal if the images are."""
    names = [files_below(theirs), files_below(ours)]
    texts = ["files: " + " ".join(names[0]) + "\n", "files: " + " ".join(names[1]) + "\n"]
    for name in sorted(set(names[0]) & set(names[1])):
        if sparse_files.same(theirs / name, ours / name):
            continue
        facts = [image_facts(reference, directory, name, rules) for directory in (theirs, ours)]
        texts = [text + fact for text, fact in zip(texts, facts)]
        if "unwritten" in rules:  # what nobody has written decrypts to anything
            continue
        has_data_file = all('"data-file":' in fact for fact in facts)
        compared = compare_images(reference, theirs, ours, name, rules, has_data_file)
        if compared.returncode != 0:
            texts[0] += name + ": content\n"
            texts[1] += name + ": " + compared.stdout
    return texts


def run_case(case, options, store, available, scratch):
    theirs = scratch / "reference" / case.name
    ours = scratch / "ours" / case.name
    for _ in range(REFERENCE_ATTEMPTS):
        expected = run_side(case, options.reference, peers.environment, theirs, store, available)
        if "accurate CPU usage" not in expected["stderr"]:  # QEMU's measuring, on a busy machine
            break
        shutil.rmtree(theirs)
    actual = run_side(case, options.ours, own_environment, ours, store, available)
    expected["files"], actual["files"] = compare_files(options.qemu_img, theirs, ours, case.rules)
    differing = [key for key in expected if expected[key] != actual[key]]
    diff = ""
    for key in differing:
        diff += "".join(difflib.unified_diff(expected[key].splitlines(True), actual[key].splitlines(True),
                                             f"reference {key}", f"ours {key}", n=1))
        if not diff.endswith("\n"):
            diff += "\n"
    for directory in (theirs, ours):
        shutil.rmtree(directory)
    return set(differing), diff


def judge(case, differing, diff):
    """None if the case is as it should be, otherwise what is wrong."""
    if case.accepted is None:
        return diff if differing else None
    if not differing:
        return f"the accepted difference is gone: take it out of the table ({case.accepted.reason})\n"
    beyond = differing - set(case.accepted.where)
    if beyond:
        return f"differs beyond what is accepted, in {', '.join(sorted(beyond))}\n{diff}"
    return None


TABLES = {"qemu-img": cases.CASES, "qemu-io": cases_shell.CASES}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, type=pathlib.Path)
    parser.add_argument("--reference", required=True)
    parser.add_argument("--table", choices=TABLES, default="qemu-img")
    parser.add_argument("--qemu-img", default="qemu-img", help="makes images and compares them")
    parser.add_argument("--only", default="", help="run only the cases whose name contains this")
    parser.add_argument("--jobs", type=int, default=min(8, (os.cpu_count() or 1) + 1))
    parser.add_argument("--show-accepted", action="store_true", help="print the accepted differences too")
    options = parser.parse_args()
    options.ours = options.ours.absolute()

    chosen = [case for case in TABLES[options.table] if options.only in case.name]
    names = [case.name for case in chosen]
    assert len(names) == len(set(names)), "two cases have one name"
    failed = accepted = 0
    with tempfile.TemporaryDirectory(prefix="compat-") as scratch_name:
        scratch = pathlib.Path(scratch_name)
        store = scratch / "store"
        store.mkdir()
        fixtures.Builder(store, options.qemu_img).build()
        available = files_below(store)
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            runs = [(case, pool.submit(run_case, case, options, store, available, scratch)) for case in chosen]
            for case, run in runs:
                differing, diff = run.result()
                wrong = judge(case, differing, diff)
                if wrong is not None:
                    failed += 1
                    print(f"FAILED {case.name}: {options.table} {case.command}\n{wrong}")
                elif differing:
                    accepted += 1
                    if options.show_accepted:
                        print(f"accepted {case.name}: {options.table} {case.command}\n  {case.accepted.reason}\n{diff}")
    print(f"{len(chosen)} invocations: {len(chosen) - failed - accepted} the same, "
          f"{accepted} with an accepted difference, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
