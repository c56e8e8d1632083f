"""The images that the benchmarks work on, made from real files."""

import os
import shutil
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


def overlay_writes(total):
    piece = OVERLAY_BYTES // OVERLAY_PIECES
    return [argument for i in range(OVERLAY_PIECES)
            for argument in ("-c", f"write -P {i + 1} {i * (total // OVERLAY_PIECES)} {piece}")]


SECRET = ["--object", "secret,id=s,data=benchmark"]


def luks(name):
    return f"driver=luks,key-secret=s,file.filename={name}"


def encrypted(name):
    return f"driver=qcow2,encrypt.key-secret=s,file.filename={name}"


def recipes(platter, total):
    """How each image but fs.raw is made, in an order in which that is possible. By platter where qemu-img takes long,
    or fails on a busy machine while it measures how fast it derives keys."""
    luks, qcow2 = "key-secret=s,iter-time=10", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    compress = [platter, "convert", "-c", "-O", "qcow2", "-o"]
    return {
        "fs.qcow2": [["qemu-img", "convert", "-O", "qcow2", "fs.raw", "fs.qcow2"]],
        "large.qcow2": [[*create, "-o", "preallocation=metadata", "large.qcow2", "1T"]],
        "empty.raw": [["qemu-img", "create", "-q", "-f", "raw", "empty.raw", str(total)]],
        "empty.qcow2": [[*create, "empty.qcow2", str(total)]],
        "overlay.qcow2": [[*create, "empty.qcow2", str(total)],
                          [*create, "-b", "empty.qcow2", "-F", "qcow2", "overlay.qcow2"],
                          ["qemu-io", "-f", "qcow2", *overlay_writes(total), "overlay.qcow2"]],
        "fs.zlib.qcow2": [[*compress, "compression_type=zlib", "fs.raw", "fs.zlib.qcow2"]],
        "fs.zstd.qcow2": [[*compress, "compression_type=zstd", "fs.raw", "fs.zstd.qcow2"]],
        "fs.luks": [[platter, "convert", *SECRET, "-O", "luks", "-o", luks, "fs.raw", "fs.luks"]],
        "vault.luks": [[platter, "create", "-q", *SECRET, "-f", "luks", "-o", luks, "vault.luks", str(total)]],
        "fs.crypt.qcow2": [[platter, "convert", *SECRET, "-O", "qcow2", "-o", qcow2, "fs.raw", "fs.crypt.qcow2"]],
        "vault.qcow2": [[platter, "create", "-q", *SECRET, "-f", "qcow2", "-o", qcow2, "vault.qcow2", str(total)]],
    }


class Images:
    """The images in a directory. Each is made when a command first names it, and goes when no later one does: what lies
    in memory meanwhile, or in the page cache, decides how fast everything is."""

    def __init__(self, directory, platter, tree, size):
        self.directory = directory
        self.total = make_file_system(self.path("fs.raw"), tree, size)
        self.recipes = recipes(platter, self.total)

    def path(self, name):
        return os.path.join(self.directory, name)

    def provide(self, names, kept):
        """Makes those of the names that are images and are not there; of those in `kept` there are copies."""
        for name in names:
            if name not in self.recipes or os.path.exists(self.path(name)):
                continue
            for command in self.recipes[name]:
                subprocess.run(command, check=True, cwd=self.directory, stdout=subprocess.DEVNULL)
        for name in kept:
            if not os.path.exists(self.path(name + ".kept")):
                shutil.copyfile(self.path(name), self.path(name + ".kept"))

    def drop_all_but(self, names):
        for name in self.recipes:
            for path in (self.path(name), self.path(name + ".kept")):
                if name not in names and os.path.exists(path):
                    os.unlink(path)
