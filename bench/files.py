"""The images that the benchmarks work on, made from real files."""

import os
import subprocess

MIB = 1 << 20
TREES = ["/usr/share", "/usr/include", "/usr/bin", "/usr/lib"]
TREE_BYTES_WANTED = 1200 * MIB
IMAGE_BYTES = 4096 * MIB
# What an overlay holds of its own, and how many pieces it comes in.
OVERLAY_BYTES = 256 * MIB
OVERLAY_PIECES = 64


def tree_bytes(path):
    out = subprocess.run(["du", "-sxB1", path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return int(out.stdout.split()[0])


def gather_tree(directory):
    """Copies real files, whole directories at a time, until there are enough."""
    size = 0
    parts = TREES[:-1] + sorted(entry.path for entry in os.scandir(TREES[-1]) if entry.is_dir(follow_symlinks=False))
    for part in parts:
        if size >= TREE_BYTES_WANTED or not os.path.isdir(part):
            continue
        subprocess.run(["cp", "-a", "--parents", part, directory], stderr=subprocess.DEVNULL, check=False)
        size = tree_bytes(directory)
    return size


def make_file_system(path, tree, size):
    total = max(IMAGE_BYTES, (size * 5 // 4 // MIB + 64) * MIB)
    with open(path, "wb") as image:
        image.truncate(total)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, path], check=True,
                   stderr=subprocess.DEVNULL)
    return total


def prepare(directory, tree, size):
    """fs.raw and its forms, an overlay with templates for commands that change images, a large empty image."""
    def qemu_img(*arguments):
        subprocess.run(["qemu-img", *arguments], check=True, cwd=directory, stdout=subprocess.DEVNULL)

    total = make_file_system(os.path.join(directory, "fs.raw"), tree, size)
    qemu_img("convert", "-O", "qcow2", "fs.raw", "fs.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "large.qcow2", "1T")
    qemu_img("create", "-q", "-f", "qcow2", "empty.qcow2", str(total))
    qemu_img("create", "-q", "-f", "qcow2", "-b", "empty.qcow2", "-F", "qcow2", "overlay.qcow2")
    piece = OVERLAY_BYTES // OVERLAY_PIECES
    writes = [argument for i in range(OVERLAY_PIECES)
              for argument in ("-c", f"write -P {i + 1} {i * (total // OVERLAY_PIECES)} {piece}")]
    subprocess.run(["qemu-io", "-f", "qcow2", *writes, "overlay.qcow2"], check=True, cwd=directory,
                   stdout=subprocess.DEVNULL)
    return total


SECRET = ["--object", "secret,id=s,data=benchmark"]


def luks(name):
    return f"driver=luks,key-secret=s,file.filename={name}"


def encrypted(name):
    return f"driver=qcow2,encrypt.key-secret=s,file.filename={name}"


def encrypt(directory, total):
    """The encrypted forms, and empty ones to write to: by platter, as QEMU's measuring fails on a busy machine."""
    def path(name):
        return os.path.join(directory, name)

    luks_options, qcow2_options = "key-secret=s,iter-time=10", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    yield "fs.luks", ["convert", *SECRET, "-O", "luks", "-o", luks_options, "fs.raw", path("fs.luks")]
    yield "vault.luks", ["create", "-q", *SECRET, "-f", "luks", "-o", luks_options, path("vault.luks"), str(total)]
    yield "fs.crypt.qcow2", ["convert", *SECRET, "-O", "qcow2", "-o", qcow2_options, "fs.raw", path("fs.crypt.qcow2")]
    yield "vault.qcow2", ["create", "-q", *SECRET, "-f", "qcow2", "-o", qcow2_options, path("vault.qcow2"), str(total)]


def compress(directory):
    """The compressed forms, which take qemu-img long to make: by platter's convert, once."""
    for kind in ("zlib", "zstd"):
        yield f"fs.{kind}.qcow2", ["convert", "-c", "-O", "qcow2", "-o", f"compression_type={kind}", "fs.raw",
                                   os.path.join(directory, f"fs.{kind}.qcow2")]
