"""An image with some of qcow2's features, what either program does with it, and a model of what it must hold."""

import os
import pathlib
import random
import sys
import types

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "compat")]
import bitmap_bits  # noqa: E402
import images  # noqa: E402
import peers  # noqa: E402
from images import Failure  # noqa: E402

MAKERS = ("platter", "qemu")
QEMU_PROGRAMS = ("qemu-img", "qemu-io")
TIMEOUT_S = 120
SECTOR = 512
KIB, MIB = 1 << 10, 1 << 20
SIZES = {512: 2 * MIB, 4096: 3 * MIB, 16384: 4 * MIB, 65536: 6 * MIB, 2 * MIB: 12 * MIB}
TAIL = 5 * SECTOR  # the disk ends within a cluster
KEYS = ("--object", "secret,id=key,data=sixteen letters.", "--object", "secret,id=new,data=another")
PATTERNS = {"text": b" ".join(b"line %d of a text that compresses" % line for line in range(1500)),
            "noise": random.Random(0).randbytes(50021)}


def programs(compat, maker):
    """(the maker, the other one); each has a name and the paths of its two programs."""
    ours = types.SimpleNamespace(name="platter", img=os.path.join(compat, "qemu-img"), io=os.path.join(compat, "qemu-io"))
    theirs = types.SimpleNamespace(name="qemu", img=QEMU_PROGRAMS[0], io=QEMU_PROGRAMS[1])
    return (ours, theirs) if maker == "platter" else (theirs, ours)


class Image:
    def __init__(self, row, number, directory):
        self.row = types.SimpleNamespace(**row)
        self.random = random.Random(number)
        self.shop = images.Workshop(None, directory)
        self.turn = None
        self.size = SIZES[self.row.cluster] + TAIL
        self.content = bytearray(self.size)
        # Where version 2 cannot give clusters back (something is beneath) the first ones are kept for compressed data.
        kept = self.row.compression and self.row.compat == "0.10" and self.row.backing
        self.compressed_only = self.size // 4 // self.row.cluster * self.row.cluster if kept else 0
        self.compressed_before = 0
        self.snapshots = {}  # name: content
        self.bitmaps = {}
        self.specific = {"compat": self.row.compat, "refcount-bits": self.row.bits,
                         "compression-type": self.row.compression or "zlib"}
        if self.row.compat == "1.1":
            self.specific.update({"lazy-refcounts": self.row.lazy, "extended-l2": self.row.extended})
        if self.row.data_file:
            self.specific.update({"data-file": "data", "data-file-raw": self.row.data_file == "raw"})
        self.options = "driver=qcow2,file.filename=image"
        self.open_with("key")
        self.keys = KEYS if self.row.encryption else ()
        for name, data in PATTERNS.items():
            pathlib.Path(self.shop.path(name)).write_bytes(data)

    def open_with(self, secret):
        if self.row.encryption:
            self.options = f"driver=qcow2,file.filename=image,encrypt.key-secret={secret}"

    def run(self, *words, **expect):
        environment = peers.environment() if words[0] in QEMU_PROGRAMS else None
        for tries_left in reversed(range(peers.TRIES)):
            try:
                return self.shop.run(*words, timeout=TIMEOUT_S, env=environment, **expect)
            except Failure as failure:
                if not tries_left or not peers.gave_up(str(failure)):
                    raise

    def img(self, program, command, *words, options=(), **expect):
        return self.run(program.img, command, *self.keys, "--image-opts", *options, self.options, *words, **expect)

    # ---- What a program does to it

    def create(self, program):
        row = self.row
        options = [f"compat={row.compat},cluster_size={row.cluster},refcount_bits={row.bits}"]
        options += [f"preallocation={row.preallocation}"]
        options += ["lazy_refcounts=on"] * row.lazy + ["extended_l2=on"] * row.extended
        options += [f"compression_type={row.compression}"] * (row.compression is not None)
        options += ["data_file=data"] * (row.data_file is not None) + ["data_file_raw=on"] * (row.data_file == "raw")
        options += [f"encrypt.format={row.encryption},encrypt.key-secret=key"] * (row.encryption is not None)
        options += ["encrypt.iter-time=10"] * (row.encryption == "luks")
        backing = []
        if row.backing:
            backing = ["-b", "base", "-F", row.backing.split()[0]]
            self.create_base(program, backing[-1])
        self.run(program.img, "create", "-q", "-f", "qcow2", *self.keys, "-o", ",".join(options), *backing,
                 "image", self.size)

    def create_base(self, program, kind):
        size = {"raw": self.size, "qcow2 shorter": self.size // 3 // SECTOR * SECTOR * 2,
                "qcow2 longer": self.size + MIB}[self.row.backing]
        self.run(program.img, "create", "-q", "-f", kind, "base", size)
        third = size // 3
        self.run(program.io, "-f", kind, "-c", f"write -s text 0 {third}", "-c", f"write -s noise {2 * third} {third}", "base")
        base = repeated(PATTERNS["text"], third) + bytes(third) + repeated(PATTERNS["noise"], third)
        self.content[:] = base[:self.size].ljust(self.size, b"\0")

    def write(self, program, kinds, killed=False):
        """A request of each kind; if killed the program ends without closing the image."""
        # QEMU 7.2 goes on filling a cluster of compressed data that was given back and is something else by now ("write
        # -c -P 1 0 512", "discard 0 512", "write -P 2 1k 512", "write -c -P 3 2k 512": 1k is overwritten): by QEMU all
        # compressed data come last.
        parts = [kinds] if program.name == "qemu" else [kinds[::2], kinds[1::2]]
        commands = []
        for part in parts:
            commands += [self.request(kind) for kind in part if kind != "compressed"]
            commands += self.compressed(part.count("compressed"))
        commands += ["flush", "sigraise 9"] * killed
        words = [word for command in commands for word in ("-c", command)]
        self.run(program.io, *self.keys, "-d", "unmap", *words, "--image-opts", self.options, status=-9 if killed else 0)

    def request(self, kind):
        cluster = self.row.cluster
        offset = self.random.randrange(self.compressed_only // SECTOR, self.size // SECTOR) * SECTOR
        length = self.random.choice([SECTOR, 4 * KIB, cluster, cluster + cluster // 2, 3 * cluster, 200 * KIB])
        if kind.startswith("unaligned"):
            offset, length = offset + self.random.randrange(SECTOR), self.random.randrange(1, 70000)
        elif kind == "discard":
            length = self.random.choice([3 * cluster, 4 * cluster, self.size])
        length = min(length, self.size - offset)
        if kind == "discard":
            return self.discard(offset, length)
        if "zero" in kind:
            self.put(offset, bytes(length))
            return f"write -z {'-u ' * ('unmap' in kind)}{offset} {length}"
        return self.pattern(self.random.choice([*PATTERNS, str(self.random.randrange(1, 256))]), offset, length)

    def compressed(self, count):
        """Nothing is compressed into clusters that are in use: those are given back first."""
        cluster = self.row.cluster
        if self.compressed_only:
            first, end = self.compressed_before, min(self.compressed_before + 2 * count, self.compressed_only // cluster)
            starts = list(range(first, end, 2))
            self.compressed_before = end
        else:
            end = self.size // cluster
            starts = sorted({self.random.randrange(end) for _ in range(count)})
        places = [(start * cluster, (min(start + self.random.randrange(1, 4), following) - start) * cluster)
                  for start, following in zip(starts, [*starts[1:], end])]
        patterns = ["text", "noise", str(self.random.randrange(1, 256))]
        return ([self.discard(*place) for place in places if not self.compressed_only] +
                [self.pattern(self.random.choice(patterns), *place, "-c") for place in places])

    def pattern(self, pattern, offset, length, *how):
        data = PATTERNS.get(pattern) or bytes([int(pattern)])
        self.put(offset, repeated(data, length))
        return " ".join(["write", *how, "-s" if pattern in PATTERNS else "-P", pattern, str(offset), str(length)])

    def put(self, offset, data):
        self.content[offset:offset + len(data)] = data
        self.mark(offset, len(data))

    def mark(self, offset, length):
        for bitmap in self.bitmaps.values():
            if bitmap.enabled:
                bitmap.mark(offset, length)

    def discard(self, offset, length):
        """Whole clusters read as zeroes then; version 2 cannot say so where something is beneath."""
        self.mark(offset, length)
        if self.specific["compat"] == "1.1" or not self.row.backing:
            cluster = self.row.cluster
            first = (offset + cluster - 1) // cluster * cluster
            end = offset + length if offset + length == self.size else (offset + length) // cluster * cluster
            self.content[first:max(first, end)] = bytes(max(first, end) - first)
        return f"discard {offset} {length}"

    def snapshot(self, program, action, name):
        if action == "-a" and self.bitmaps:  # what they record would not be true any more
            self.img(program, "snapshot", options=("-a", name), status=1, text="Device has active dirty bitmaps")
            return
        self.img(program, "snapshot", options=(action, name))
        if action == "-c":
            self.snapshots[name] = bytes(self.content)
        elif action == "-a":
            self.content = bytearray(self.snapshots[name])
            self.size = len(self.content)
        else:
            del self.snapshots[name]

    def bitmap(self, program, name, *actions):
        """Actions as the command line has them: "--add", "--merge", OTHER."""
        self.img(program, "bitmap", name, options=actions)
        words = list(actions)
        while words:
            action = words.pop(0)
            if action == "--add":
                self.bitmaps[name] = bitmap_bits.Bitmap(max(4 * KIB, min(self.row.cluster, 64 * KIB)))
            elif action == "-g":
                self.bitmaps[name].granularity = int(words.pop(0))
            elif action == "--clear":
                self.bitmaps[name].dirty.clear()
            elif action == "--merge":
                self.bitmaps[name].merge(self.bitmaps[words.pop(0)], self.size)
            else:
                self.bitmaps[name].enabled = {"--enable": True, "--disable": False}[action]

    def resize(self, program, size, preallocation="off"):
        self.img(program, "resize", size, options=("-q", "--shrink", f"--preallocation={preallocation}"))
        self.content = self.content[:size].ljust(size, b"\0")
        self.size = size
        for bitmap in self.bitmaps.values():
            bitmap.cut(size)

    def amend(self, program, options, **shown):
        self.img(program, "amend", options=("-o", options))
        self.specific.update({name.replace("_", "-"): value for name, value in shown.items()})
        self.specific = {name: value for name, value in self.specific.items() if value is not None}


def repeated(data, length):
    return (data * (length // len(data) + 1))[:length]
