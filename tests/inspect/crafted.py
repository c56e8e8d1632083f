"""Images crafted to do harm, one or more of each kind that has been seen.

CRAFTED lists them: a name, the image's bytes, how it is to be opened (None: as found), the rule that
each policy refuses it by, and a part of the reason.
"""

import pathlib
import struct
import sys
from typing import NamedTuple, Optional

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "badinput"))
import qcow2_image  # noqa: E402

SECTOR = 512


class Crafted(NamedTuple):
    name: str
    content: bytes
    rule: str
    reason: str
    opened_as: Optional[str] = None
    policies: tuple = ("default", "openstack")


def fields(size, *parts):
    """`size` zero bytes with (offset, format, value...) packed in; bytes stand for themselves."""
    data = bytearray(size)
    for offset, kind, *values in parts:
        if isinstance(kind, bytes):
            data[offset:offset + len(kind)] = kind
        else:
            struct.pack_into(kind, data, offset, *values)
    return bytes(data)


def patched(data, *parts):
    data = bytearray(data)
    for offset, kind, *values in parts:
        if isinstance(kind, bytes):
            data[offset:offset + len(kind)] = kind
        else:
            struct.pack_into(kind, data, offset, *values)
    return bytes(data)


# ---- qcow2

def qcow2(*parts):
    return patched(qcow2_image.Image().bytes, *parts)


def qcow2_extension(kind, data, *parts):
    return patched(qcow2_image.Image().extension(kind, data).bytes, *parts)


def backed(name):
    return qcow2((8, ">Q", 1024), (16, ">I", len(name)), (1024, name))


def data_file(name):
    return qcow2_extension(qcow2_image.DATA_FILE, name, (72, ">Q", 4))


QCOW2 = [
    # A file of the host as the backing file: its content becomes the guest's (CVE-2015-5163, CVE-2026-27211).
    Crafted("backing-absolute", backed(b"/etc/shadow"), "backing-file", "'/etc/shadow' (absolute)"),
    Crafted("backing-climbing", backed(b"../../../etc/shadow"), "backing-file", "'../../../etc/shadow' (relative)"),
    Crafted("backing-json", backed(b'json:{"driver":"file","filename":"/etc/shadow"}'), "backing-file", "(json)"),
    Crafted("backing-protocol", backed(b"nbd://10.0.0.1/secret"), "backing-file", "'nbd://10.0.0.1/secret' (protocol)"),
    Crafted("backing-nameless", qcow2((8, ">Q", 1024)), "backing-file", "It names a backing file"),
    Crafted("backing-name-of-a-terminal", backed(b"\x1b]0;x\x07\x1b[2J"), "backing-file", "\\x1b]0;x\\x07\\x1b[2J"),
    # The same by a data file (CVE-2024-32498), also where the tool itself would open it (CVE-2024-4467).
    Crafted("data-file", data_file(b"/etc/shadow"), "data-file", "'/etc/shadow' (absolute)"),
    Crafted("data-file-json", data_file(b'json:{"file":{"driver":"file","filename":"/etc/shadow"}}'), "data-file", "(json)"),
    Crafted("data-file-raw", patched(data_file(b"/dev/sda"), (88, ">Q", 2)), "data-file", "'/dev/sda'"),
    Crafted("data-file-without-a-name", qcow2((72, ">Q", 4)), "data-file", "It names an external data file"),
    Crafted("data-file-without-its-bit", qcow2_extension(qcow2_image.DATA_FILE, b"/etc/shadow"), "data-file", "/etc/shadow"),
    # A guest writes a header into its raw disk, and somebody probes it (CVE-2008-2004, CVE-2011-3147, CVE-2026-24708).
    Crafted("raw-with-a-header", backed(b"/etc/shadow"), "several-formats", "would be taken for 'qcow2' too", "raw"),
    Crafted("raw-with-a-vmdk-header", b"KDMV" + bytes(8188), "several-formats", "taken for 'vmdk' too", "raw"),
    # Fields that overflow, divide by zero, or ask for any amount of memory (CVE-2014-0142 to 0148, CVE-2015-5162).
    Crafted("version-0", qcow2((4, ">I", 0)), "damage", "Unsupported qcow2 version 0"),
    Crafted("version-4", qcow2((4, ">I", 4)), "damage", "Unsupported qcow2 version 4"),
    Crafted("cluster-bits-0", qcow2((20, ">I", 0)), "damage", "cluster size"),
    Crafted("cluster-bits-63", qcow2((20, ">I", 63)), "damage", "cluster size"),
    Crafted("refcount-order-7", qcow2((96, ">I", 7)), "damage", "may not exceed 64 bits"),
    Crafted("header-length-huge", qcow2((100, ">I", 0xfffffff8)), "damage", "header exceeds cluster size"),
    Crafted("size-negative", qcow2((24, ">Q", 1 << 63)), "damage", "too big"),
    Crafted("l1-huge", qcow2((36, ">I", 0xffffffff)), "damage", "Active L1 table too large"),
    Crafted("l1-wraps", qcow2((40, ">Q", (1 << 64) - 65536)), "damage", "Active L1 table offset invalid"),
    Crafted("l1-outside", qcow2((40, ">Q", 1 << 40)), "damage", "The L1 table lies outside the file"),
    Crafted("l1-too-small", qcow2((24, ">Q", 1 << 50)), "damage", "L1 table is too small"),
    Crafted("refcount-table-huge", qcow2((56, ">I", 0xffffffff)), "damage", "Reference count table too large"),
    Crafted("refcount-table-none", qcow2((56, ">I", 0)), "damage", "does not contain a reference count table"),
    Crafted("snapshots-many", qcow2((60, ">I", 0xffffffff)), "damage", "Snapshot table too large"),
    Crafted("snapshots-outside", qcow2((60, ">I", 65536), (64, ">Q", 1 << 50)), "damage", "snapshot table lies outside"),
    Crafted("backing-name-huge", qcow2((8, ">Q", 1024), (16, ">I", 0x7fffffff)), "damage", "Backing file name too long"),
    Crafted("backing-name-outside", qcow2((8, ">Q", 1 << 62), (16, ">I", 9)), "damage", "Invalid backing file offset"),
    Crafted("extension-huge", qcow2_extension(0x12345678, b"", (116, ">I", 0xffffffff)), "damage", "extension too large"),
    Crafted("bitmaps-outside", qcow2_extension(qcow2_image.BITMAPS, struct.pack(">IIQQ", 1, 0, 64, 1 << 50), (88, ">Q", 1)),
            "damage", "bitmap directory lies outside"),
    Crafted("bitmaps-endless", qcow2_extension(qcow2_image.BITMAPS, struct.pack(">IIQQ", 65535, 0, 1 << 40, 0), (88, ">Q", 1)),
            "damage", "bitmaps_ext"),
    Crafted("truncated-after-its-header", qcow2()[:4096], "damage", "L1 table lies outside the file"),
    Crafted("truncated", qcow2()[:100], "damage", "header too short"),
    # What a program that is older than the image does not know.
    Crafted("unknown-feature", qcow2_extension(qcow2_image.FEATURE_NAMES, struct.pack(">BB46s", 0, 40, b"future"),
                                               (72, ">Q", 1 << 40)), "unknown-features", "incompatible bit 40 'future'"),
    Crafted("corrupt", qcow2((72, ">Q", 2)), "refused-features", "'corrupt'"),
    Crafted("extended-l2", qcow2((72, ">Q", 16)), "refused-features", "'extended-l2'", None, ("openstack",)),
    Crafted("compression-unknown", qcow2((72, ">Q", 8), (104, ">B", 7)), "damage", "unknown compression type: 7"),
    # Two programs take it for two things.
    Crafted("qcow2-and-iso", qcow2((32769, b"CD001")), "several-formats", "'iso9660'"),
    Crafted("qcow2-and-mbr", qcow2((510, b"\x55\xaa"), (446 + 4, b"\x83"), (446 + 8, "<I", 1)), "several-formats", "'mbr'"),
    Crafted("qcow2-and-gpt", qcow2((512, b"EFI PART")), "several-formats", "'gpt'"),
    Crafted("qcow2-and-vhd", qcow2() + b"conectix" + bytes(504), "several-formats", "'vpc'"),
    Crafted("qcow2-and-vdi", qcow2((64, b"\x7f\x10\xda\xbe")), "several-formats", "'vdi'"),
]

# ---- VMDK

DESCRIPTOR = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=%s\ncreateType="%s"\n\n%s\n'


def vmdk(create_type=b"monolithicSparse", extents=b'RW 128 SPARSE "a.vmdk"', parent=b"ffffffff", *parts):
    text = DESCRIPTOR % (parent, create_type, extents)
    return patched(fields(64 << 10, (0, b"KDMV"), (4, "<II", 1, 3), (12, "<QQ", 128, 128), (28, "<QQ", 1, 20),
                          (44, "<I", 512), (48, "<QQ", 21, 26), (512, text)), *parts)


def descriptor(create_type, extents, parent=b"ffffffff"):
    return DESCRIPTOR % (parent, create_type, extents)


FOOTER_FLAGS = ((4, "<II", 3, 0x30001), (56, "<Q", (1 << 64) - 1), (77, "<H", 1))


def stream_optimized(*footer_parts):
    data = vmdk(b"streamOptimized", b'RW 128 SPARSE "a.vmdk"', b"ffffffff", *FOOTER_FLAGS)
    footer = patched(data[:512], (56, "<Q", 26), *footer_parts)
    return data + footer + bytes(512)


VMDK = [
    # An extent may be any file of the host (the same class as CVE-2015-5163; also CVE-2024-40767's).
    Crafted("vmdk-flat", descriptor(b"monolithicFlat", b'RW 20 FLAT "/etc/shadow" 0'), "extent", "'/etc/shadow' (absolute)"),
    Crafted("vmdk-flat-type", descriptor(b"monolithicFlat", b'RW 20 FLAT "x" 0'), "subformats", "'monolithicFlat'"),
    Crafted("vmdk-device", descriptor(b"fullDevice", b'RW 20 FLAT "/dev/sda" 0'), "extent", "/dev/sda"),
    Crafted("vmdk-embedded-flat", vmdk(b"monolithicFlat", b'RW 20 FLAT "/etc/shadow" 0'), "extent", "/etc/shadow"),
    Crafted("vmdk-sparse-elsewhere", vmdk(extents=b'RW 128 SPARSE "/var/lib/other.vmdk"'), "extent", "/var/lib/other.vmdk"),
    Crafted("vmdk-second-extent", vmdk(extents=b'RW 128 SPARSE "a.vmdk"\nRW 20 FLAT "/etc/shadow" 0'), "extent", "/etc/shadow"),
    Crafted("vmdk-many-extents", descriptor(b"twoGbMaxExtentSparse", b'RW 1 SPARSE "a"\n' * 5000), "extent", "5000 other files"),
    Crafted("vmdk-parent", vmdk(parent=b"12345678"), "parent", "It names a parent image"),
    Crafted("vmdk-two-types", vmdk(b'monolithicSparse"\ncreateType="monolithicFlat'), "subformats", "+monolithicFlat"),
    Crafted("vmdk-indented-keys", descriptor(b'x"\n  CREATETYPE = "monolithicFlat', b'rw 20 flat "/etc/shadow"'), "extent", "/etc/shadow"),
    Crafted("vmdk-no-descriptor", vmdk(b"x", b"", b"0", (28, "<QQ", 0, 0)), "damage", "no descriptor of its own"),
    Crafted("vmdk-descriptor-huge", vmdk(b"x", b"", b"0", (36, "<Q", 1 << 60)), "damage", "descriptor lies outside"),
    Crafted("vmdk-capacity", vmdk(b"x", b"", b"0", (12, "<Q", 1 << 60)), "damage", "Impossible capacity"),
    Crafted("vmdk-grain-0", vmdk(b"x", b"", b"0", (20, "<Q", 0)), "damage", "Invalid grain size of 0"),
    Crafted("vmdk-tables-0", vmdk(b"x", b"", b"0", (44, "<I", 0)), "damage", "Invalid grain table"),
    Crafted("vmdk-directory", vmdk(b"x", b"", b"0", (56, "<Q", 1 << 50)), "damage", "grain directory lies outside"),
    Crafted("vmdk-footer-missing", vmdk(b"streamOptimized", b'RW 128 SPARSE "a"', b"ffffffff", *FOOTER_FLAGS), "damage", "footer"),
    Crafted("vmdk-footer-differs", stream_optimized((12, "<Q", 1 << 30)), "damage", "does not agree with its header"),
    Crafted("vmdk-esx-parent", fields(8192, (0, b"COWD"), (4, "<II", 1, 2), (12, "<II", 2048, 8), (44, b"/etc/shadow")),
            "parent", "/etc/shadow"),
]

# ---- The others


def checksummed(data, at):
    total = sum(data) - sum(data[at:at + 4])
    return patched(data, (at, ">I", ~total & 0xffffffff))


def vpc(kind=3, header=(), footer=()):
    foot = checksummed(fields(512, (0, b"conectix"), (12, ">I", 0x10000), (16, ">Q", 512), (28, b"win "),
                              (40, ">QQ", 8 << 20, 8 << 20), (60, ">I", kind), *footer), 64)
    head = checksummed(fields(1024, (0, b"cxsparse"), (16, ">Q", 1536), (24, ">III", 0x10000, 4, 2 << 20), *header), 36)
    return foot + head + b"\xff" * 512 + foot


VPC = [
    Crafted("vhd-parent", vpc(4, ((64, "/etc/shadow".encode("utf-16-be")),)), "parent", "/etc/shadow"),
    Crafted("vhd-block-0", vpc(3, ((32, ">I", 0),)), "damage", "Invalid block size 0"),
    Crafted("vhd-table-huge", vpc(3, ((28, ">I", 0xffffffff),)), "damage", "table lies outside the file"),
    Crafted("vhd-table-short", vpc(3, ((28, ">I", 1),)), "damage", "table is too small"),
    Crafted("vhd-header-outside", vpc(3, (), ((16, ">Q", 1 << 62),)), "damage", "header lies outside the file"),
    Crafted("vhd-checksum", patched(vpc(), (70, b"x")), "damage", "checksum of its footer"),
    Crafted("vhd-fixed-as-raw", bytes(8192) + vpc(2)[:512], "several-formats", "taken for 'vpc'"),
]

GUIDS = {"metadata": "06a27c8b9047 9a4bb8fe575f050f886e", "parameters": "3767a1ca36fa434db3b633f0aa44e76b",
         "size": "2442a52f1bcd76 48b2115dbed83bf4b8", "parent": "2d5fd3a80bb34d45abf7d3d84834ab0c"}
GUIDS = {name: bytes.fromhex(text.replace(" ", "")) for name, text in GUIDS.items()}


def vhdx(items=(), region=(), size=8 << 20):
    """Region table at 192 KiB, metadata region at 1 MiB."""
    entries = {"parameters": struct.pack("<II", 1 << 20, 0), "size": struct.pack("<Q", size), **dict(items)}
    meta = bytearray(128 << 10)
    struct.pack_into("<8sHH", meta, 0, b"metadata", 0, len(entries))
    for index, (name, value) in enumerate(entries.items()):
        at = (64 << 10) + index * 4096
        struct.pack_into("<16sIII", meta, 32 + index * 32, GUIDS.get(name, b"\xee" * 16), at, len(value), 4)
        meta[at:at + len(value)] = value
    table = fields(64 << 10, (0, b"regi"), (8, "<I", 1), (16, GUIDS["metadata"]), (32, "<QII", 1 << 20, len(meta), 1), *region)
    head = patched(bytes(1 << 20), (0, b"vhdxfile"), (192 << 10, table))
    return head + bytes(meta)


def locator(name):
    key, value = "relative_path".encode("utf-16-le"), name.encode("utf-16-le")
    return fields(4096, (18, "<H", 1), (20, "<IIHH", 32, 512, len(key), len(value)), (32, key), (512, value))


VHDX = [
    Crafted("vhdx-parent", vhdx({"parameters": struct.pack("<II", 1 << 20, 2), "parent": locator("/etc/shadow")}.items()),
            "parent", "/etc/shadow"),
    Crafted("vhdx-parent-unnamed", vhdx({"parameters": struct.pack("<II", 1 << 20, 2)}.items()), "parent", "a parent image"),
    Crafted("vhdx-block-0", vhdx({"parameters": struct.pack("<II", 0, 0)}.items()), "damage", "Invalid block size 0"),
    Crafted("vhdx-size", vhdx(size=1 << 63), "damage", "Impossible size"),
    Crafted("vhdx-regions", vhdx(region=((8, "<I", 0xffffffff),)), "damage", "region table has"),
    Crafted("vhdx-region-outside", vhdx(region=((32, "<Q", 1 << 62),)), "damage", "lies outside the file"),
    Crafted("vhdx-unknown-item", vhdx({"other": bytes(8)}.items()), "unknown-features", "required metadata item eeeeeeee"),
    Crafted("vhdx-no-region-table", b"vhdxfile" + bytes(1 << 20), "damage", "no region table"),
]


def vdi(*parts):
    return fields(2048, (64, "<II", 0xbeda107f, 0x10001), (72, "<II", 400, 1), (340, "<II", 512, 1024), (360, "<I", 512),
                  (368, "<Q", 8 << 20), (376, "<IIII", 1 << 20, 0, 8, 0), *parts)


def luks(*parts):
    slots = [(208 + 48 * i, ">I", 0xdead) for i in range(8)]
    return fields(4096 + SECTOR, (0, b"LUKS\xba\xbe\x00\x01"), (8, b"aes"), (40, b"xts-plain64"), (72, b"sha256"),
                  (104, ">II", 8, 64), *slots, *parts)


def parallels(*parts):
    return fields(4096, (0, b"WithouFreSpacExt"), (16, "<I", 2), (28, "<II", 2048, 8), (36, "<Q", 16384), *parts)


def qed(*parts):
    return fields(8192, (0, b"QED\0"), (4, "<III", 65536, 4, 1), (40, "<QQ", 4096, 8 << 20), *parts)


def qcow(*parts):
    return fields(4096, (0, b"QFI\xfb"), (4, ">I", 1), (24, ">Q", 8 << 20), (32, "BB", 12, 9), (40, ">Q", 48), *parts)


def mbr(*parts):
    return fields(4 << 20, (446 + 4, b"\x83"), (446 + 8, "<II", 2048, 1000), (510, b"\x55\xaa"), *parts)


OTHERS = [
    Crafted("vdi-block-0", vdi((376, "<I", 0)), "damage", "Invalid block size 0"),
    Crafted("vdi-map-huge", vdi((384, "<I", 0xffffffff)), "damage", "block map lies outside"),
    Crafted("vdi-map-short", vdi((384, "<I", 1)), "damage", "block map is too small"),
    Crafted("vdi-size", vdi((368, "<Q", 1 << 63)), "damage", "too big"),
    Crafted("vdi-parent", vdi((76, "<I", 4), (440, b"\x11" * 16)), "parent", "uuid 11111111-1111"),
    Crafted("luks-version-3", luks((6, ">H", 3)), "damage", "Unsupported LUKS version 3"),
    Crafted("luks-2", luks((6, ">H", 2), (8, ">Q", 2048)), "encryption", "'luks2'", None, ("openstack",)),
    Crafted("luks-payload", luks((104, ">I", 1 << 30)), "damage", "payload lies outside"),
    Crafted("luks-slot-outside", luks((208, ">I", 0xac71f3), (208 + 40, ">II", 1 << 30, 4000)), "damage", "Key slot 0 lies outside"),
    Crafted("luks-slot-for-ever", luks((208, ">II", 0xac71f3, 0xffffffff), (208 + 40, ">II", 2, 4)), "damage", "Key slot 0 takes 4294967295 iterations"),
    Crafted("luks-digest-for-ever", luks((164, ">I", 0xffffffff)), "damage", "The digest of its key takes 4294967295 iterations"),
    Crafted("parallels-block-0", parallels((28, "<I", 0)), "damage", "Invalid block size 0"),
    Crafted("parallels-table", parallels((32, "<I", 0xffffffff)), "damage", "table lies outside"),
    Crafted("parallels-size", parallels((36, "<Q", 1 << 60)), "damage", "Impossible size"),
    Crafted("parallels-in-a-cloud", parallels(), "formats", "Its format is 'parallels'", None, ("openstack",)),
    Crafted("qed-backing", qed((16, "<Q", 1), (56, "<II", 64, 11), (64, b"/etc/shadow")), "backing-file", "/etc/shadow"),
    Crafted("qed-in-a-cloud", qed(), "formats", "Its format is 'qed'", None, ("openstack",)),
    Crafted("qed-unknown", qed((16, "<Q", 1 << 20)), "unknown-features", "bit 20"),
    Crafted("qed-cluster-0", qed((4, "<I", 0)), "damage", "cluster size: 0"),
    Crafted("qcow-backing", qcow((8, ">QI", 100, 11), (100, b"/etc/shadow")), "backing-file", "/etc/shadow"),
    Crafted("qcow-cluster-bits", qcow((32, "B", 63)), "damage", "cluster size: 2^63"),
    Crafted("qcow-l2-bits", qcow((33, "B", 255)), "damage", "L2 table size"),
    Crafted("bochs", b"Bochs Virtual HD Image" + bytes(4096), "formats", "'bochs'"),
    Crafted("cloop", b"#!/bin/sh\n#V2.0 Format\n" + bytes(4096), "formats", "'cloop'"),
    Crafted("dmg-behind-raw", bytes(4096) + b"koly" + bytes(508), "several-formats", "'dmg'"),
    Crafted("mbr-boot-flag", mbr((446, b"\x41")), "odd-partition-table", "boot flag 0x41", None, ("openstack",)),
    Crafted("mbr-empty", mbr((446 + 4, b"\0")), "odd-partition-table", "no partition", None, ("openstack",)),
    Crafted("gpt-alone", mbr((512, b"EFI PART")), "odd-partition-table", "without a protective", None, ("openstack",)),
    Crafted("vmdk-and-iso", vmdk(b"monolithicSparse", b'RW 128 SPARSE "a"', b"ffffffff", (32769, b"CD001")),
            "several-formats", "'iso9660'"),
]

CRAFTED = QCOW2 + VMDK + VPC + VHDX + OTHERS

# What both policies accept: the same builders, undamaged.
SOUND = {"qcow2": qcow2(), "vmdk": vmdk(), "stream.vmdk": stream_optimized(), "vpc": vpc(), "vhdx": vhdx(), "vdi": vdi(),
         "luks": luks(), "raw": mbr(), "empty": b"", "iso.raw": fields(64 << 10, (32769, b"CD001"), (446 + 4, b"\x17"),
                                                                       (446 + 8, "<II", 64, 9), (510, b"\x55\xaa"))}
