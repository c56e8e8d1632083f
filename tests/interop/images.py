"""Programs and images that the interop cases share. Standard library only."""

import json
import os
import re
import shutil
import subprocess


class Failure(Exception):
    pass


class Workshop:
    """A scratch directory, the two programs, and how to run them."""

    def __init__(self, platter, directory):
        self.platter_program = platter
        self.directory = directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, *arguments, status=0, text=None, timeout=1200, env=None):
        """Runs a program; raises Failure unless it ends with `status` (None: any) and prints `text`."""
        result = subprocess.run([str(a) for a in arguments], cwd=self.directory, timeout=timeout, env=env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)
        output = result.stdout.decode(errors="replace")
        shown = " ".join(str(a) for a in arguments)
        if status is not None and result.returncode != status:
            raise Failure(f"{shown}\n  exit status {result.returncode}, expected {status}: "
                          f"{output[:1500]}")
        if text is not None and text not in output:
            raise Failure(f"{shown}\n  did not print {text!r}: {output[:1500]}")
        return output

    def platter(self, *arguments, **expect):
        return self.run(self.platter_program, *arguments, **expect)

    def qemu(self, *arguments, **expect):
        return self.run("qemu-img", *arguments, **expect)

    def qemu_io(self, image, *commands, format="qcow2", options=()):
        arguments = [a for command in commands for a in ("-c", command)]
        output = self.run("qemu-io", "-f", format, *options, *arguments, image)
        if re.search(r"Pattern verification failed|error|Input/output|failed", output):
            raise Failure(f"qemu-io {commands} {image}: {output[:1500]}")
        return output

    def info(self, image):
        return json.loads(self.qemu("info", "--output=json", image))

    def same_bytes(self, one, other):
        self.run("cmp", one, other)

    def remove(self, *names):
        for name in names:
            if os.path.exists(self.path(name)):
                os.remove(self.path(name))


def tree_bytes(tree):
    total = 0
    for directory, _, files in os.walk(tree):
        for name in files:
            try:
                status = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            total += (status.st_size + 8191) // 4096 * 4096
        total += 8192
    return total


def copy_part(tree, target, limit):
    """Copies files of `tree`, in name order, until `limit` bytes are there."""
    left = limit
    for directory, directories, files in os.walk(tree):
        directories.sort()
        for name in sorted(files):
            source = os.path.join(directory, name)
            if not os.path.isfile(source) or os.path.islink(source):
                continue
            size = os.path.getsize(source)
            if size > left // 4:
                continue
            goal = os.path.join(target, os.path.relpath(directory, tree))
            os.makedirs(goal, exist_ok=True)
            try:
                shutil.copyfile(source, os.path.join(goal, name))
            except PermissionError:
                continue
            left -= size + 4096
            if left < limit // 16:
                return


def make_ext4(shop, name, tree, minimum=0, limit=None):
    """A filesystem image of a real tree, as large as the tree asks for (at least `minimum`)."""
    source = tree
    if limit is not None:
        source = shop.path("tree")
        if not os.path.isdir(source):
            copy_part(tree, source, limit)
    size = max(tree_bytes(source) * 5 // 4 + (16 << 20), minimum) >> 20
    shop.run("mke2fs", "-q", "-t", "ext4", "-F", "-d", source, shop.path(name), f"{size}M",
             timeout=1200)
    shop.run("e2fsck", "-fn", shop.path(name))
    return shop.path(name)


CLUSTER_SIZES = [512 << i for i in range(13)]
REFCOUNT_BITS = [1, 2, 4, 8, 16, 32, 64]
# What compat and refcount_bits can be together: version 2 knows 16 bits alone.
VERSIONS = [("0.10", 16)] + [("1.1", bits) for bits in REFCOUNT_BITS]


def every_combination():
    return [(size, compat, bits) for size in CLUSTER_SIZES for compat, bits in VERSIONS]


def some_combinations():
    """Each cluster size with version 2 and two widths of version 3; each width with several sizes."""
    chosen = []
    for index, size in enumerate(CLUSTER_SIZES):
        chosen.append((size, *VERSIONS[0]))
        chosen.append((size, *VERSIONS[1 + index % 7]))
        chosen.append((size, *VERSIONS[1 + (index + 4) % 7]))
    return chosen


def create_options(size, compat, bits):
    return f"cluster_size={size},compat={compat},refcount_bits={bits}"
