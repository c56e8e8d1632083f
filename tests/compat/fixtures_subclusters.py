"""Images with subclusters (extended L2 entries) and with data files, for cases_subclusters.py."""

import struct

DEPENDS = {
    "subover.qcow2": ["base.qcow2"],
    "subprealloc.qcow2": ["base.qcow2"],
    "ext.qcow2": ["ext.raw"],
    "extraw.qcow2": ["extraw.raw"],
    "extover.qcow2": ["extover.raw", "base.qcow2"],
    "extsub.qcow2": ["extsub.raw"],
    "extshort.qcow2": ["extshort.raw"],
    "extcompressed.qcow2": ["ext.raw"],
    "extelsewhere.qcow2": ["ext.raw"],
    "extuncopied.qcow2": ["ext.raw"],
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

    def with_data_file(name, size, *more, backing=(), options=""):
        data = name.replace(".qcow2", ".raw")
        builder.img("create", "-q", "-f", "qcow2", "-o", f"data_file={data}{options}", *backing, name, size)
        builder.io(name, "write -P 1 0 64k", "write -P 2 130k 4k", "write -z 256k 64k", "write -P 3 1M 200k", *more)

    with_data_file("ext.qcow2", "4M")
    with_data_file("extraw.qcow2", "4M", "write -z 0 4k", options=",data_file_raw=on")
    with_data_file("extover.qcow2", "5M", "discard 1M 64k", backing=("-b", "base.qcow2", "-F", "qcow2"))
    with_data_file("extsub.qcow2", "4M", "write -z 4k 8k", options=",extended_l2=on")
    with_data_file("extshort.qcow2", "4M")
    builder.truncate("extshort.raw", 1 << 20)
    with_data_file("extlost.qcow2", "4M")
    (builder.directory / "extlost.raw").unlink()
    builder.copy("ext.qcow2", "extunnamed.qcow2")
    builder.img("amend", "-o", "data_file=", "extunnamed.qcow2")
    for name, target in (("extnbd.qcow2", "nbd://localhost/"), ("extjson.qcow2", 'json:{"driver":"null-co"}'),
                         ("extself.qcow2", "extself.qcow2"), ("extpasswd.qcow2", "/etc/passwd")):
        builder.copy("ext.qcow2", name)
        builder.img("amend", "-o", "data_file=" + target.replace(",", ",,"), name)

    def damaged_entry(name, index, entry):
        builder.copy("ext.qcow2", name)
        data = (builder.directory / name).read_bytes()
        l1 = struct.unpack_from(">Q", data, 40)[0]
        l2 = struct.unpack_from(">Q", data, l1)[0] & 0x00fffffffffffe00
        builder.patch(name, l2 + 8 * index, struct.pack(">Q", entry))

    damaged_entry("extcompressed.qcow2", 1, 1 << 62 | 0x10000)
    damaged_entry("extelsewhere.qcow2", 2, 1 << 63 | 0x50000)
    damaged_entry("extuncopied.qcow2", 2, 0x20000)

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
