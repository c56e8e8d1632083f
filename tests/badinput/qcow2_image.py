"""Small qcow2 images, laid out byte by byte, for tests to damage."""

import struct

CLUSTER = 65536
HEADER, REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, DATA = range(6)
DATA_CLUSTERS = 4
COPIED = 1 << 63
COMPRESSED = 1 << 62

# Extension types.
BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 0x44415441
CRYPTO_HEADER = 0x0537BE77
FEATURE_NAMES = 0x6803F857
BITMAPS = 0x23852875


def at(cluster, entry=0, size=8):
    """The offset of an entry of the table in a cluster."""
    return cluster * CLUSTER + entry * size


class Image:
    """Version 3, 4 MiB, 64 KiB clusters, 16-bit counts, the first four clusters mapped (to zeroes)."""

    def __init__(self, refcount_table_at=REFCOUNT_TABLE):
        self.bytes = bytearray((DATA + DATA_CLUSTERS) * CLUSTER)
        self.put(0, "I", 0x514649FB).put(4, "I", 3)
        self.put(20, "I", 16).put(24, "Q", 4 << 20)
        self.put(36, "I", 1).put(40, "Q", at(L1))
        self.put(48, "Q", at(refcount_table_at)).put(56, "I", 1)
        self.put(96, "I", 4).put(100, "I", 112)
        self.put(at(REFCOUNT_TABLE), "Q", at(REFCOUNT_BLOCK))
        for cluster in range(DATA + DATA_CLUSTERS):
            self.count(cluster, 1)
        self.put(at(L1), "Q", at(L2) | COPIED)
        for index in range(DATA_CLUSTERS):
            self.put(at(L2, index), "Q", at(DATA + index) | COPIED)

    def put(self, offset, kind, value):
        struct.pack_into(">" + kind, self.bytes, offset, value)
        return self

    def raw(self, offset, data):
        self.bytes[offset:offset + len(data)] = data
        return self

    def count(self, cluster, value):
        return self.put(at(REFCOUNT_BLOCK, cluster, 2), "H", value)

    def l2(self, index, entry):
        return self.put(at(L2, index), "Q", entry)

    def subclusters(self, index, entry, bitmap):
        return self.put(at(L2, index, 16), "Q", entry).put(at(L2, index, 16) + 8, "Q", bitmap)

    def extension(self, kind, data=b"", length=None, offset=112):
        self.put(offset, "I", kind).put(offset + 4, "I", len(data) if length is None else length)
        return self.raw(offset + 8, data)

    def bitmaps(self, count, directory_size, directory_offset, reserved=0, autoclear=1):
        self.put(88, "Q", autoclear)
        return self.extension(
            BITMAPS, struct.pack(">IIQQ", count, reserved, directory_size, directory_offset))

    def snapshots(self, *entries, offset=DATA + DATA_CLUSTERS):
        """Each entry: (L1 offset, L1 entries, bytes of extra data)."""
        table = b""
        for l1_offset, l1_entries, extra in entries:
            table += struct.pack(">QIHHIIQII", l1_offset, l1_entries, 1, 4, 0, 0, 0, 0, extra)
            table += bytes(extra) + b"1" + b"snap"
            table += bytes(-len(table) % 8)
        self.bytes += table + bytes(-len(table) % CLUSTER)
        self.count(offset, 1)
        return self.put(60, "I", len(entries)).put(64, "Q", at(offset))

    def cut(self, length):
        del self.bytes[length:]
        return self

    def grow(self, length):
        self.bytes += bytes(length - len(self.bytes))
        return self
