"""New qcow2 images: in order by qemu-img's check and our own, described alike, and refused alike.

usage: qcow2_test.py PATH-OF-COMPAT-QEMU-IMG
"""

import os
import subprocess
import sys
import tempfile

QEMU = "/usr/bin/qemu-img"

LAYOUTS = (
    "cluster_size=64k",
    "cluster_size=512,refcount_bits=64",
    "cluster_size=2M",
    "compat=0.10",
    "compression_type=zstd",
    "lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=metadata,cluster_size=512",
    "preallocation=metadata,cluster_size=512,refcount_bits=64",
    "preallocation=metadata,cluster_size=2M",
    "preallocation=metadata,refcount_bits=1",
    "preallocation=metadata,compat=0.10,cluster_size=4k",
    "preallocation=falloc",
    "preallocation=full,cluster_size=4k",
    "extended_l2=on",
    "extended_l2=on,cluster_size=16k,refcount_bits=1",
    "extended_l2=on,cluster_size=128k,preallocation=metadata",
    "extended_l2=on,preallocation=falloc",
)
SIZES = ("0", "1000", "7M", "33M")

# Options, size: what cannot be made. The messages are qemu-img's.
REFUSED = (
    ("cluster_size=1000", "1M"), ("cluster_size=256", "1M"), ("cluster_size=4M", "1M"),
    ("compat=1.2", "1M"), ("preallocation=some", "1M"), ("compression_type=lz4", "1M"),
    ("compression_type=zstd,compat=0.10", "1M"), ("refcount_bits=7", "1M"), ("refcount_bits=0", "1M"),
    ("refcount_bits=128", "1M"), ("refcount_bits=8,compat=v2", "1M"), ("lazy_refcounts=on,compat=0.10", "1M"),
    ("extended_l2=on,cluster_size=4k", "1M"), ("extended_l2=on,compat=v2", "1M"), ("data_file_raw=on", "1M"),
    ("data_file=x.raw,compat=v2", "1M"), ("encrypt.format=rot13", "1M"), ("encrypt.iter-time=3", "1M"),
    ("encryption=on,encrypt.format=luks", "1M"), ("backing_fmt=raw", "1M"), ("unheard_of=1", "1M"),
    ("lazy_refcounts=maybe", "1M"), ("cluster_size=64k", "5P"), ("cluster_size=512", "200G"),
    ("cluster_size=2M", "3E"), ("encryption=on", "1M"), ("encrypt.format=luks", "1M"),
)


def run(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


class Tests:
    def __init__(self, platter):
        self.platter = platter
        self.failures = 0
        self.count = 0

    def expect(self, what, holds, seen):
        self.count += 1
        if not holds:
            self.failures += 1
            print(f"FAILED {what}: {str(seen)[:2000]}")

    def made(self, options, size):
        for name, program in (("ours", self.platter), ("theirs", QEMU)):
            result = run(program, "create", "-q", "-f", "qcow2", "-o", options, name, size)
            self.expect(f"{program} create {options} {size}", result == (0, "", ""), result)
        ours = run(QEMU, "check", "ours")
        self.expect(f"check {options} {size}", ours[0] == 0 and ours[2] == "", ours)
        own = run(self.platter, "check", "ours")
        self.expect(f"own check {options} {size}", own == ours, (own, ours))
        self.expect(f"info {options} {size}", self.facts(QEMU, "ours") == self.facts(QEMU, "theirs"),
                    (self.facts(QEMU, "ours"), self.facts(QEMU, "theirs")))
        compared = run(QEMU, "compare", "ours", "theirs")
        self.expect(f"compare {options} {size}", compared[0] == 0, compared)

    @staticmethod
    def facts(program, name):
        output = run(program, "info", name)[1]
        return [line for line in output.splitlines() if not line.startswith(("image:", "disk size:"))]

    def refused(self, options, size):
        arguments = ("create", "-q", "-f", "qcow2", "-o", options, "new", size)
        ours, theirs = run(self.platter, *arguments), run(QEMU, *arguments)
        self.expect(f"create {options} {size}", ours == theirs and ours[0] == 1, (ours, theirs))
        if os.path.exists("new") and os.path.getsize("new") != 0:
            self.expect(f"create {options} {size} leaves nothing", False, os.path.getsize("new"))

    def kept(self):
        """Options are judged before an existing file is touched."""
        with open("precious", "wb") as file:
            file.write(b"x" * 100)
        result = run(self.platter, "create", "-q", "-f", "qcow2", "-o", "cluster_size=1000", "precious", "1M")
        self.expect("refusal keeps the file", result[0] == 1 and os.path.getsize("precious") == 100, result)


def main():
    tests = Tests(os.path.abspath(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="create") as directory:
        os.chdir(directory)
        for options in LAYOUTS:
            for size in SIZES:
                tests.made(options, size)
        for options, size in REFUSED:
            tests.refused(options, size)
        tests.kept()
        os.chdir("/")
    print(f"{tests.count} expectations, {tests.failures} failures")
    return 1 if tests.failures else 0


if __name__ == "__main__":
    sys.exit(main())
