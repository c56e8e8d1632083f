"""The dirty bitmaps of a qcow2 image, read from its bytes by themselves: no program in between; and a model of one."""

import mmap
import struct

EXTENSION = 0x23852875
OFFSET = 0x00fffffffffffe00
IN_USE, AUTO = 1, 2


class Bitmap:
    """What a bitmap must have."""

    def __init__(self, granularity, enabled=True):
        self.granularity = granularity
        self.enabled = enabled
        self.dirty = set()

    def mark(self, offset, length):
        self.dirty.update(range(offset // self.granularity, (offset + length - 1) // self.granularity + 1))

    def merge(self, other, size):
        for bit in sorted(other.dirty):
            offset = bit * other.granularity
            self.mark(offset, min(other.granularity, size - offset))

    def cut(self, size):
        self.dirty = {bit for bit in self.dirty if bit * self.granularity < size}

    def runs(self):
        """Dirty runs as [first bit, bits]."""
        found = []
        for bit in sorted(self.dirty):
            if found and sum(found[-1]) == bit:
                found[-1][1] += 1
            else:
                found.append([bit, 1])
        return found


class Image:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # it may be vast, with holes
        (self.cluster_bits, self.size) = struct.unpack_from(">IQ", self.bytes, 20)
        self.cluster = 1 << self.cluster_bits

    def extension(self):
        if struct.unpack_from(">I", self.bytes, 4)[0] < 3 or not struct.unpack_from(">Q", self.bytes, 88)[0] & 1:
            return None
        at = struct.unpack_from(">I", self.bytes, 100)[0]
        while True:
            kind, length = struct.unpack_from(">II", self.bytes, at)
            if kind == EXTENSION:
                return struct.unpack_from(">IIQQ", self.bytes, at + 8)
            if kind == 0:
                return None
            at += 8 + (length + 7) // 8 * 8

    def records(self):
        extension = self.extension()
        if extension is None:
            return
        count, _, _, at = extension
        for _ in range(count):
            table, entries, flags, kind, granularity, name_length, extra = struct.unpack_from(">QIIBBHI", self.bytes, at)
            name = self.bytes[at + 24 + extra:at + 24 + extra + name_length].decode(errors="replace")
            yield name, flags, 1 << granularity, table, entries
            at += (24 + extra + name_length + 7) // 8 * 8

    def runs(self, granularity, table, entries):
        """Dirty runs as [first bit, bits]."""
        per_cluster = self.cluster * 8
        bits = (self.size + granularity - 1) // granularity
        found = []

        def add(first, count):
            if found and sum(found[-1]) == first:
                found[-1][1] += count
            elif count:
                found.append([first, count])

        for index in range(entries):
            entry = struct.unpack_from(">Q", self.bytes, table + 8 * index)[0]
            first = index * per_cluster
            if entry & OFFSET:
                data = self.bytes[entry & OFFSET:(entry & OFFSET) + min(self.cluster, (bits - first + 7) // 8)]
                for position, byte in enumerate(data):
                    for bit in range(8) if byte else ():
                        if byte >> bit & 1:
                            add(first + position * 8 + bit, 1)
            elif entry & 1:
                add(first, min(per_cluster, bits - first))
        return found


def describe(path):
    """One line a bitmap."""
    with open(path, "rb") as file:
        head = file.read(112)
    if len(head) < 112 or head[:4] != b"QFI\xfb":
        return ""
    image = Image(path)
    lines = []
    for name, flags, granularity, table, entries in image.records():
        runs = "not stored" if flags & IN_USE else image.runs(granularity, table, entries)
        lines.append(f"bitmap {name}: flags {flags}, granularity {granularity}, dirty {runs}\n")
    return "".join(lines)
