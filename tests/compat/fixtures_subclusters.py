"""Images with subclusters (extended L2 entries), for cases_subclusters.py."""

import struct

DEPENDS = {
    "subover.qcow2": ["base.qcow2"],
    "subprealloc.qcow2": ["base.qcow2"],
}


def build(builder):
    builder.create("sub.qcow2", "4M", "-o", "extended_l2=on")
    builder.io("sub.qcow2", "write -P 1 0 64k", "write -P 2 70k 5k", "write -P 3 130k 4k", "write -z 8k 4k",
               "write -z -u 256k 64k", "write -z 320k 6k", "write -P 4 1M 200k")
    builder.img("convert", "-c", "-O", "qcow2", "-o", "extended_l2=on", "data.qcow2", "subzlib.qcow2")
    builder.img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,cluster_size=128k", "-b", "base.qcow2", "-F", "qcow2",
                "subover.qcow2", "5M")
    builder.io("subover.qcow2", "write -P 5 70k 3k", "write -z 130k 8k", "discard 1M 128k", "write -P 6 4400k 4k")
    builder.img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,preallocation=metadata", "-b", "base.qcow2", "-F",
                "qcow2", "subprealloc.qcow2")
    builder.copy("sub.qcow2", "subsnap.qcow2")
    builder.img("snapshot", "-c", "one", "subsnap.qcow2")
    builder.io("subsnap.qcow2", "write -P 9 66k 3k", "write -z 4k 4k", "discard 1M 64k")

    def damaged(name, index, entry=None, bitmap=None, source="sub.qcow2"):
        builder.copy(source, name)
        data = (builder.directory / name).read_bytes()
        l1 = struct.unpack_from(">Q", data, 40)[0]
        l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00fffffffffffe00
        if entry is not None:
            builder.patch(name, l2 + 16 * index, struct.pack(">Q", entry))
        if bitmap is not None:
            builder.patch(name, l2 + 16 * index + 8, struct.pack(">Q", bitmap))

    damaged("subboth.qcow2", 0, bitmap=(1 << 32) | 0xffffffff)
    damaged("subnowhere.qcow2", 10, bitmap=5)
    damaged("subcompressed.qcow2", 1, bitmap=1, source="subzlib.qcow2")
    damaged("subuncopied.qcow2", 0, entry=0x50000)
