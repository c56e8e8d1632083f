#!/usr/bin/env python3
"""qcow2's features in pairs, both ways between Platter and QEMU: every value of each with every value of each other.

usage: features.py BIN_COMPAT [--full] [--only N [--maker platter|qemu]] [--list] [--jobs N]

For every combination one program makes an image, the other reads and changes it, and the first one goes on
with that; after each turn both check it, and every byte of it, its snapshots and its bitmaps are what a model
in memory says. --full: every three values together.
"""

import argparse
import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import features_turns  # noqa: E402
from covering import Array, Rule  # noqa: E402
from features_image import MAKERS, Image, programs  # noqa: E402
from images import Failure  # noqa: E402
from scratch import in_memory  # noqa: E402

SEED = 4
PARAMETERS = {
    "compat": ["0.10", "1.1"],
    "cluster": [512, 4096, 16384, 65536, 2 << 20],
    "bits": [1, 2, 4, 8, 16, 32, 64],
    "lazy": [False, True],
    "extended": [False, True],
    "compression": [None, "zlib", "zstd"],
    "data_file": [None, "external", "raw"],
    "encryption": [None, "aes", "luks"],
    "snapshots": ["none", "one", "several"],
    "bitmaps": ["none", "enabled", "disabled and merged"],
    "backing": [None, "raw", "qcow2 shorter", "qcow2 longer"],
    "preallocation": ["off", "metadata", "falloc"],
}
COSTLY = {"luks", 2 << 20}  # derives keys; takes more bytes
RULES = [
    Rule("version 2 has counts of 16 bits", lambda compat, bits: compat == "0.10" and bits != 16),
    Rule("version 2 has no dirty bit", lambda compat, lazy: compat == "0.10" and lazy),
    Rule("version 2 has no subclusters", lambda compat, extended: compat == "0.10" and extended),
    Rule("version 2 has no compression type", lambda compat, compression: compat == "0.10" and compression == "zstd"),
    Rule("version 2 has no data file", lambda compat, data_file: compat == "0.10" and data_file),
    Rule("version 2 has no bitmaps", lambda compat, bitmaps: compat == "0.10" and bitmaps != "none"),
    Rule("a subcluster is a sector at least", lambda cluster, extended: extended and cluster < 16384),
    Rule("nothing is compressed in a data file", lambda compression, data_file: compression and data_file),
    Rule("compressed data would not be encrypted", lambda compression, encryption: compression and encryption),
    Rule("a data file holds no snapshots", lambda data_file, snapshots: data_file and snapshots != "none"),
    Rule("a raw data file hides what is beneath", lambda data_file, backing: data_file == "raw" and backing),
    Rule("a raw data file would hold ciphertext", lambda data_file, encryption: data_file == "raw" and encryption),
    Rule("a count of one bit knows one owner", lambda bits, snapshots: bits == 1 and snapshots != "none"),
    Rule("a cluster of several compressed ones and of snapshots has more owners than four bits count",
         lambda bits, compression, snapshots: bits < 8 and compression and snapshots != "none"),
    Rule("two snapshots and the disk are three owners, and to apply one takes a fourth for an instant",
         lambda bits, snapshots: bits == 2 and snapshots == "several"),
    Rule("what is mapped hides what is beneath, unless there are subclusters",
         lambda extended, backing, preallocation: preallocation != "off" and backing and not extended),
    Rule("mapped and not written, encrypted clusters read as noise",
         lambda encryption, extended, preallocation: preallocation != "off" and encryption and not extended),
]


def describe(row):
    return ", ".join(f"{name} {row[name]}" for name in row)


def run_one(number, row, maker, compat, scratch, full):
    """What went wrong, or None."""
    directory = tempfile.mkdtemp(prefix="platter-features-", dir=scratch)
    image = Image(row, number, directory)
    try:
        features_turns.play(image, *programs(compat, maker))
    except (Failure, subprocess.TimeoutExpired, OSError) as failure:
        return (f"combination {number}, made by {maker}: {describe(row)}\n  at: {image.turn}\n  {failure}\n"
                f"  alone: features.py {compat} {'--full ' * full}--only {number} --maker {maker}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("compat", help="the directory of Platter's programs with QEMU's names")
    parser.add_argument("--full", action="store_true", help="every three values together")
    parser.add_argument("--only", type=int)
    parser.add_argument("--maker", choices=MAKERS)
    parser.add_argument("--list", action="store_true", help="the combinations, and what is left out")
    parser.add_argument("--jobs", type=int, default=4, help="more than processors: where they are on a disk they wait for it")
    parser.add_argument("--scratch", default=in_memory(512))
    arguments = parser.parse_args()

    start = time.monotonic()
    strength = 3 if arguments.full else 2
    array = Array(PARAMETERS, RULES, COSTLY, strength, SEED)
    if arguments.list:
        print("\n".join(f"{number}: {describe(row)}" for number, row in enumerate(array.rows)))
        print("\n".join(f"left out: {rule.reason}" for rule in RULES))
        return 0
    chosen = [(number, row, maker) for number, row in enumerate(array.rows) for maker in MAKERS
              if arguments.only in (None, number) and arguments.maker in (None, maker)]
    compat = os.path.abspath(arguments.compat)
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [pool.submit(run_one, *one, compat, arguments.scratch, arguments.full) for one in chosen]
        failures = []
        for run in concurrent.futures.as_completed(runs):
            if run.result():
                failures.append(run.result())
                print("FAIL", run.result(), flush=True)
    print(f"{len(array.rows)} combinations with all {len(array.possible)} groups of {strength} values that there can be "
          f"({len(array.impossible)} there cannot), {len(chosen)} images made, {len(failures)} failed, "
          f"{time.monotonic() - start:.0f} s")
    return 1 if failures or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
