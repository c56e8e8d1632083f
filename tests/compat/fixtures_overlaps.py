"""Images whose guest data, or one of their tables, lies where metadata is, for cases_overlaps.py."""

import struct

import image_of_tables as tables

COPIED = 1 << 63


def build(builder):
    """An image of version 3 with a snapshot and a bitmap, and copies in which the entry of the first guest cluster, or
    another table's, names one of its structures."""
    name = "overnone.qcow2"
    builder.create(name, "4M")
    builder.io(name, "write -P 1 0 256k")
    builder.img("snapshot", "-c", "one", name)
    builder.io(name, "write -P 2 0 256k")
    builder.img("bitmap", "--add", name, "b")
    builder.io(name, "write -P 3 64k 64k")

    image = tables.Image((builder.directory / name).read_bytes())
    l2 = image.l1[0] & tables.OFFSET
    structures = {
        "l1": image.l1_offset, "l2": l2, "reftable": image.refcount_table_offset, "refblock": image.refcount_table[0],
        "snapshots": image.snapshots_offset, "inactivel1": image.snapshot_l1_offset,
        "inactivel2": image.snapshot_l1[0] & tables.OFFSET, "directory": image.bitmap_directory_offset,
    }
    for structure, offset in structures.items():
        target = f"over{structure}.qcow2"
        builder.copy(name, target)
        builder.patch(target, l2, struct.pack(">Q", offset | COPIED))

    def counted_free(target, offset):
        builder.copy(name, target)
        builder.patch(target, image.refcount_table[0] + 2 * (offset // image.cluster_size), b"\0\0")

    for structure in ("l2", "refblock", "inactivel1", "directory"):
        counted_free(f"overfree{structure}.qcow2", structures[structure])
    builder.copy(name, "overtable.qcow2")
    builder.patch("overtable.qcow2", image.l1_offset, struct.pack(">Q", image.refcount_table[0] | COPIED))
