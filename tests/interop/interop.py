#!/usr/bin/env python3
"""Real images, both ways between Platter and QEMU's tools: every byte and every table agrees.

usage: interop.py --platter PROGRAM [--hold PROGRAM] [--full] [--tree DIR] [--case NAME] [--scratch DIR]

By itself it takes a part of the tree and a part of the combinations, for CI; --full takes the whole tree (an image
of at least 1 GiB) through every cluster size, version and refcount width.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

import images
import locking
from images import Failure


def case_matrix(shop, source, combinations):
    """raw -> qcow2 by one program, checked and read by the other, and back to the same bytes."""
    for size, compat, bits in combinations:
        options = images.create_options(size, compat, bits)
        try:
            written_by_platter(shop, source, options, size, compat, bits)
            written_by_qemu(shop, source, options)
        except Failure as failure:
            raise Failure(f"-o {options}: {failure}") from failure
        finally:
            shop.remove("ours.qcow2", "theirs.qcow2", "back.raw")


def written_by_platter(shop, source, options, size, compat, bits):
    shop.platter("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "ours.qcow2")
    shop.qemu("check", "-f", "qcow2", "ours.qcow2", text="No errors were found")
    shop.platter("check", "-f", "qcow2", "ours.qcow2", text="No errors were found")
    shop.qemu("compare", "-f", "raw", "-F", "qcow2", source, "ours.qcow2", text="identical")
    info = shop.info("ours.qcow2")
    specific = info["format-specific"]["data"]
    if (info["cluster-size"], specific["compat"], specific["refcount-bits"]) != (size, compat, bits):
        raise Failure(f"qemu-img info: {info}")
    shop.qemu("convert", "-f", "qcow2", "-O", "raw", "ours.qcow2", "back.raw")
    shop.same_bytes(source, "back.raw")
    shop.remove("back.raw")


def written_by_qemu(shop, source, options):
    shop.qemu("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "theirs.qcow2")
    shop.platter("check", "-f", "qcow2", "theirs.qcow2", text="No errors were found")
    shop.platter("compare", "-f", "raw", "-F", "qcow2", source, "theirs.qcow2", text="identical")
    shop.platter("convert", "-f", "qcow2", "-O", "raw", "theirs.qcow2", "back.raw")
    shop.same_bytes(source, "back.raw")
    shop.run("e2fsck", "-fn", "back.raw")
    for ours, theirs in (("map", "map"), ("info", "info")):
        want = shop.qemu(theirs, "--output=json", "theirs.qcow2")
        got = shop.platter(ours, "--output=json", "theirs.qcow2")
        if want != got:
            raise Failure(f"{ours} --output=json differs:\n{got[:800]}\n  qemu-img:\n{want[:800]}")


def case_qcow2_to_qcow2(shop, source, combinations):
    """From one geometry straight into another."""
    shop.qemu("convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096", source, "from.qcow2")
    for size, compat, bits in combinations:
        options = images.create_options(size, compat, bits)
        shop.platter("convert", "-f", "qcow2", "-O", "qcow2", "-o", options, "from.qcow2", "to.qcow2")
        shop.qemu("check", "-f", "qcow2", "to.qcow2", text="No errors were found")
        shop.qemu("compare", "-f", "raw", "-F", "qcow2", source, "to.qcow2", text="identical")
        shop.remove("to.qcow2")
    shop.remove("from.qcow2")


def case_preallocation(shop, source, combinations):
    """Mapped in full, then written in place."""
    for mode in ("metadata", "falloc", "full"):
        for size in (4096, 65536, 2 << 20):
            options = f"preallocation={mode},cluster_size={size}"
            shop.platter("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "pre.qcow2")
            shop.qemu("check", "-f", "qcow2", "pre.qcow2", text="No errors were found")
            shop.qemu("compare", "-f", "raw", "-F", "qcow2", source, "pre.qcow2", text="identical")
            shop.remove("pre.qcow2")
            shop.qemu("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "pre.qcow2")
            shop.platter("compare", "-f", "raw", "-F", "qcow2", source, "pre.qcow2", text="identical")
            shop.remove("pre.qcow2")


def case_compressed(shop, source, combinations):
    """zlib and zstd clusters made by qemu-img, of every cluster size."""
    for kind in ("zlib", "zstd"):
        for size in (512, 4096, 65536, 2 << 20):
            options = f"compression_type={kind},cluster_size={size}"
            shop.qemu("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, source, "small.qcow2")
            shop.platter("check", "-f", "qcow2", "small.qcow2", text="No errors were found")
            shop.platter("compare", "-f", "raw", "-F", "qcow2", source, "small.qcow2", text="identical")
            shop.platter("convert", "-f", "qcow2", "-O", "raw", "small.qcow2", "back.raw")
            shop.same_bytes(source, "back.raw")
            # Written over: compressed clusters are replaced, their space is accounted for.
            other = changed_copy(shop, source)
            shop.platter("convert", "-n", "-f", "raw", "-O", "qcow2", other, "small.qcow2")
            shop.qemu("check", "-f", "qcow2", "small.qcow2", text="No errors were found")
            shop.qemu("compare", "-f", "raw", "-F", "qcow2", other, "small.qcow2", text="identical")
            shop.remove("small.qcow2", "back.raw", "changed.raw")


def changed_copy(shop, source):
    """The source with every third 256 KiB replaced by other bytes."""
    target = shop.path("changed.raw")
    if os.path.exists(target):
        return target
    shutil.copyfile(source, target)
    with open(target, "r+b") as file:
        size = os.path.getsize(target)
        for offset in range(0, size - (1 << 18), 3 << 18):
            file.seek(offset)
            file.write(bytes([(offset >> 18) % 251 + 1]) * (1 << 18))
    return target


def case_snapshots(shop, source, combinations):
    """Internal snapshots survive what Platter writes to the active state."""
    for size, compat, bits in ((512, "1.1", 16), (4096, "1.1", 2), (65536, "0.10", 16),
                               (65536, "1.1", 64), (2 << 20, "1.1", 8)):
        options = images.create_options(size, compat, bits)
        shop.qemu("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "snap.qcow2")
        shop.qemu("snapshot", "-c", "first", "snap.qcow2")
        shop.platter("check", "-f", "qcow2", "snap.qcow2", text="No errors were found")
        shop.platter("compare", "-f", "raw", "-F", "qcow2", source, "snap.qcow2", text="identical")
        other = changed_copy(shop, source)
        shop.platter("convert", "-n", "-f", "raw", "-O", "qcow2", other, "snap.qcow2")
        shop.qemu("check", "-f", "qcow2", "snap.qcow2", text="No errors were found")
        shop.platter("check", "-f", "qcow2", "snap.qcow2", text="No errors were found")
        shop.qemu("compare", "-f", "raw", "-F", "qcow2", other, "snap.qcow2", text="identical")
        shop.qemu("snapshot", "-a", "first", "snap.qcow2")
        shop.qemu("compare", "-f", "raw", "-F", "qcow2", source, "snap.qcow2", text="identical")
        shop.platter("check", "-f", "qcow2", "snap.qcow2", text="No errors were found")
        shop.remove("snap.qcow2", "changed.raw")


def case_backing_chain(shop, source, combinations):
    """base <- middle <- top, raw and qcow2 bases, overlays longer and shorter than what is beneath."""
    size = os.path.getsize(source)
    for base_format in ("raw", "qcow2"):
        base = "base." + base_format
        shop.qemu("convert", "-f", "raw", "-O", base_format, source, base)
        shop.platter("create", "-f", "qcow2", "-b", base, "-F", base_format, "middle.qcow2",
                     size + (3 << 20))
        shop.qemu_io("middle.qcow2", "write -P 7 1000000 3000000", "discard 8M 1M", f"write -P 9 {size} 64k")
        shop.qemu("create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", "-o",
                  "cluster_size=2048", "top.qcow2", size - (1 << 20))
        shop.qemu_io("top.qcow2", "write -P 8 2000000 100000", "write -z 5M 70000")
        for image in ("middle.qcow2", "top.qcow2"):
            shop.platter("check", image, text="No errors were found")
            shop.platter("convert", "-f", "qcow2", "-O", "raw", image, "ours.raw")
            shop.qemu("convert", "-f", "qcow2", "-O", "raw", image, "theirs.raw")
            shop.same_bytes("ours.raw", "theirs.raw")
            for how in ((), ("--output=json",)):
                want = shop.qemu("map", *how, image)
                got = shop.platter("map", *how, image)
                if want != got:
                    raise Failure(f"map {how} {image} differs:\n{got[:800]}\n  qemu-img:\n{want[:800]}")
        shop.remove("middle.qcow2", "top.qcow2", base, "ours.raw", "theirs.raw")


def case_resize(shop, source, combinations):
    """Grown and shrunk by Platter: QEMU finds the same bytes and new zeroes."""
    size = os.path.getsize(source)
    for cluster, compat, bits in ((512, "1.1", 1), (65536, "0.10", 16), (65536, "1.1", 16)):
        options = images.create_options(cluster, compat, bits)
        shop.platter("convert", "-f", "raw", "-O", "qcow2", "-o", options, source, "size.qcow2")
        shop.platter("resize", "-f", "qcow2", "size.qcow2", "+200M")
        shop.qemu("check", "-f", "qcow2", "size.qcow2", text="No errors were found")
        shop.qemu("compare", "-f", "raw", "-F", "qcow2", source, "size.qcow2", text="identical")
        shop.platter("resize", "-f", "qcow2", "--shrink", "size.qcow2", size // 2)
        shop.qemu("check", "-f", "qcow2", "size.qcow2", text="No errors were found")
        shop.platter("resize", "-f", "qcow2", "size.qcow2", size)
        shop.qemu("check", "-f", "qcow2", "size.qcow2", text="No errors were found")
        shop.qemu("convert", "-f", "qcow2", "-O", "raw", "size.qcow2", "back.raw")
        half = size // 2 // 512 * 512
        shop.run("cmp", "-n", half, source, "back.raw")
        shop.run("cmp", "-n", size - half, "-i", f"{half}:0", "back.raw", "/dev/zero")
        shop.remove("size.qcow2", "back.raw")


def case_locking(shop, source, combinations):
    locking.run(shop)


CASES = {name[len("case_"):]: function for name, function in list(globals().items())
         if name.startswith("case_")}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--platter", required=True)
    parser.add_argument("--hold", help="the program that holds an image open (locking case)")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--tree", default="/usr/share")
    parser.add_argument("--case", action="append", choices=sorted(CASES))
    parser.add_argument("--scratch")
    arguments = parser.parse_args()

    missing = [p for p in ("qemu-img", "qemu-io", "mke2fs", "e2fsck") if shutil.which(p) is None]
    if missing:
        print("needs", ", ".join(missing))
        return 1
    directory = tempfile.mkdtemp(prefix="platter-interop-", dir=arguments.scratch)
    shop = images.Workshop(os.path.abspath(arguments.platter), directory)
    shop.hold_program = arguments.hold and os.path.abspath(arguments.hold)
    failed = []
    try:
        names = arguments.case or list(CASES)
        source = None
        if names != ["locking"]:
            minimum, limit = (1 << 30, None) if arguments.full else (0, 24 << 20)
            source = images.make_ext4(shop, "source.raw", arguments.tree, minimum, limit)
            print(f"image of {arguments.tree}: {os.path.getsize(source) >> 20} MiB", flush=True)
        combinations = images.every_combination() if arguments.full else images.some_combinations()
        for name in names:
            start = time.monotonic()
            try:
                CASES[name](shop, source, combinations)
                print(f"ok   {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except (Failure, subprocess.TimeoutExpired) as failure:
                failed.append(name)
                print(f"FAIL {name}: {failure}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
