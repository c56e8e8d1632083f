"""Where the tables of a small qcow2 image are, for those who damage them."""

import struct

OFFSET = 0x00fffffffffffe00
BITMAPS = 0x23852875


class Image:
    def __init__(self, data):
        self.data = data
        self.cluster_size = 1 << self.u32(20)
        self.l1_offset, self.refcount_table_offset = self.u64(40), self.u64(48)
        self.l1 = self.table(self.l1_offset, self.u32(36))
        self.refcount_table = self.table(self.refcount_table_offset, self.u32(56) * self.cluster_size // 8)
        self.snapshots_offset = self.u64(64)
        self.snapshot_l1_offset = self.u64(self.snapshots_offset)
        self.snapshot_l1 = self.table(self.snapshot_l1_offset, self.u32(self.snapshots_offset + 8))
        self.bitmap_directory_offset = self.u64(self.extension(BITMAPS) + 16)

    def u32(self, offset):
        return struct.unpack_from(">I", self.data, offset)[0]

    def u64(self, offset):
        return struct.unpack_from(">Q", self.data, offset)[0]

    def table(self, offset, entries):
        return struct.unpack_from(f">{entries}Q", self.data, offset)

    def extension(self, wanted):
        """Where its data begins."""
        at = self.u32(100)
        while self.u32(at) != wanted:
            assert self.u32(at) != 0, "no such extension"
            at += 8 + (self.u32(at + 4) + 7) // 8 * 8
        return at + 8
