"""Damaged qcow2 images: refused with an exact message, or checked with an exact outcome, and as qemu-img does.

usage: qcow2_test.py PATH-OF-COMPAT-QEMU-IMG

A case says what `info` and `check` do with an image. Every case is also given to QEMU's own qemu-img, whose output
and exit status must be the same, except where the case names why they are not.
"""

import dataclasses
import os
import struct
import subprocess
import sys
import tempfile

from qcow2_image import (BACKING_FORMAT, CLUSTER, COMPRESSED, COPIED, CRYPTO_HEADER, DATA, DATA_CLUSTERS, DATA_FILE,
                         FEATURE_NAMES, L1, L2, REFCOUNT_BLOCK, REFCOUNT_TABLE, Image, at)

END = DATA + DATA_CLUSTERS
MAX_MESSAGE = 2000


@dataclasses.dataclass
class Case:
    name: str
    image: Image
    refused: str = None       # the message of both commands
    info: int = 0             # exit status of info, if it is not refused
    check: int = 0            # exit status of check, if it is not refused
    says: tuple = ()          # lines that check reports
    differs: str = None       # why QEMU does something else
    check_refused: str = None # info succeeds, check is refused with this message


def header_cases():
    I = Image
    yield Case("intact", I())
    yield Case("magic", I().put(0, "I", 0), refused="Image is not in qcow2 format")
    yield Case("empty file", I().cut(0), refused="Image is not in qcow2 format")
    yield Case("only the magic", I().cut(4), refused="Unsupported qcow2 version 0")
    yield Case("version 1", I().put(4, "I", 1), refused="Unsupported qcow2 version 1")
    yield Case("version 4", I().put(4, "I", 4), refused="Unsupported qcow2 version 4")
    yield Case("cluster of 256 bytes", I().put(20, "I", 8), refused="Unsupported cluster size: 2^8")
    yield Case("cluster of 4 MiB", I().put(20, "I", 22), refused="Unsupported cluster size: 2^22")
    yield Case("cluster_bits huge", I().put(20, "I", 0xffffffff), refused="Unsupported cluster size: 2^4294967295")
    yield Case("header length short", I().put(100, "I", 100), refused="qcow2 header too short")
    yield Case("header length long", I().put(100, "I", CLUSTER + 1), refused="qcow2 header exceeds cluster size")
    yield Case("cut in the header", I().cut(100), refused="qcow2 header too short")
    yield Case("refcount_order 7", I().put(96, "I", 7),
               refused="Reference count entry width too large; may not exceed 64 bits")
    yield Case("encryption method 3", I().put(32, "I", 3), refused="Unsupported encryption method 3")
    yield Case("unknown incompatible bit", I().put(72, "Q", 1 << 5),
               refused="Unsupported qcow2 feature(s): Unknown incompatible feature: 20")
    names = struct.pack(">BB46s", 0, 5, b"quux feature") + struct.pack(">BB46s", 0, 6, b"")
    yield Case("named incompatible bit", I().put(72, "Q", 0xe0).extension(FEATURE_NAMES, names),
               refused="Unsupported qcow2 feature(s): quux feature, Unknown incompatible feature: c0")
    yield Case("unknown compatible and autoclear bits", I().put(80, "Q", 1 << 40).put(88, "Q", 1 << 40))
    yield Case("compression type without its bit", I().put(104, "B", 1),
               refused="qcow2: Compression type incompatible feature bit must be set")
    yield Case("compression bit without a type", I().put(72, "Q", 8),
               refused="qcow2: Compression type incompatible feature bit must not be set")
    yield Case("compression type 2", I().put(72, "Q", 8).put(104, "B", 2),
               refused="qcow2: unknown compression type: 2")
    yield Case("subclusters too small", I().put(72, "Q", 16).put(20, "I", 12), refused="Unsupported subcluster size: 128")
    yield Case("backing name past the cluster", I().put(8, "Q", CLUSTER - 6).put(16, "I", 100),
               refused="Backing file name too long")
    yield Case("backing name of 1024 bytes", I().put(8, "Q", 600).put(16, "I", 1024),
               refused="Backing file name too long")
    yield Case("backing name elsewhere", I().put(8, "Q", 1 << 33).put(16, "I", 10),
               refused="Invalid backing file offset")
    yield Case("backing name at the end of the world", I().put(8, "Q", 2**64 - 4).put(16, "I", 10),
               refused="Invalid backing file offset")
    yield Case("virtual size that no L1 covers", I().put(24, "Q", 1 << 62), refused="Image is too big")
    yield Case("virtual size of all ones", I().put(24, "Q", 2**64 - 1), refused="Image is too big",
               differs="QEMU says 'Could not refresh total sector count: File too large'")
    yield Case("virtual size not in sectors", I().put(24, "Q", (4 << 20) + 1))
    yield Case("dirty", I().put(72, "Q", 1))
    yield Case("corrupt", I().put(72, "Q", 2))


def extension_cases():
    I = Image
    too_large = "Header extension too large"
    yield Case("extension past the cluster", I().extension(0x12345678, length=CLUSTER), refused=too_large)
    yield Case("extension of 4 GiB", I().extension(0x12345678, length=0xffffffff), refused=too_large)
    yield Case("extension into the backing name",
               I().put(8, "Q", 512).put(16, "I", 5).extension(0x12345678, length=396), refused=too_large)
    yield Case("unknown extension", I().extension(0x12345678, b"whatever"))
    yield Case("backing format of 16 bytes", I().extension(BACKING_FORMAT, b"x" * 16),
               refused="ERROR: ext_backing_format: len=16 too large (>=16)")
    yield Case("LUKS header without encryption", I().extension(CRYPTO_HEADER, bytes(16)),
               refused="CRYPTO header extension only expected with LUKS encryption method")
    yield Case("LUKS header of 8 bytes", I().put(32, "I", 2).extension(CRYPTO_HEADER, bytes(8)),
               refused="CRYPTO header extension size 8, but expected size 16")
    yield Case("LUKS header unaligned", I().put(32, "I", 2).extension(CRYPTO_HEADER, struct.pack(">QQ", 100, 512)),
               refused="Encryption header offset '100' is not a multiple of cluster size '65536'")
    yield Case("bitmaps of the wrong length", I().put(88, "Q", 1).extension(0x23852875, bytes(23)),
               refused="bitmaps_ext: Invalid extension length")
    yield Case("bitmaps with the reserved field", I().bitmaps(1, 32, at(END), reserved=5),
               refused="bitmaps_ext: Reserved field is not zero")
    yield Case("too many bitmaps", I().bitmaps(65536, 32, at(END)),
               refused="bitmaps_ext: Image has 65536 bitmaps, exceeding the QEMU supported maximum of 65535")
    yield Case("bitmap directory unaligned", I().bitmaps(1, 100, 7),
               refused="bitmaps_ext: invalid bitmap directory offset")
    yield Case("bitmap directory huge", I().bitmaps(1, 1 << 40, at(END)),
               refused="bitmaps_ext: bitmap directory size (1099511627776) exceeds the maximum supported size (67107840)")


def subcluster_cases():
    def I():
        image = Image().put(72, "Q", 16)
        for index in range(DATA_CLUSTERS):  # whole clusters, but for their bitmaps
            image.l2(index, 0)
        for index in range(DATA_CLUSTERS):
            image.subclusters(index, at(DATA + index) | COPIED, 0xffffffff)
        return image
    broken = "ERROR offset=50000: Allocated cluster has corrupted subcluster allocation bitmap"
    nowhere = "ERROR: Unallocated cluster has non-zero subcluster allocation map"
    yield Case("subclusters", I())
    yield Case("subclusters, few of them", I().subclusters(0, at(DATA) | COPIED, 0x80000001))
    yield Case("subclusters in reserve, and zero", I().subclusters(0, at(DATA) | COPIED, 0xf0 << 32))
    yield Case("subclusters zero, without a cluster", I().subclusters(DATA_CLUSTERS, 0, 0xffffffff << 32))
    yield Case("subclusters with the zero flag", I().subclusters(0, at(DATA) | COPIED | 1, 0xffffffff))
    yield Case("subclusters allocated and zero", I().subclusters(0, at(DATA) | COPIED, (1 << 32) | 1), check=2, says=(broken,))
    yield Case("subclusters all allocated and zero", I().subclusters(0, at(DATA) | COPIED, 2**64 - 1), check=2, says=(broken,))
    yield Case("subclusters allocated nowhere", I().subclusters(DATA_CLUSTERS, 0, 4), check=2, says=(nowhere,))
    yield Case("subclusters allocated nowhere, and zero", I().subclusters(DATA_CLUSTERS, 0, (4 << 32) | 4), check=2, says=(nowhere,))
    for name, bitmap in (("allocated", 1), ("zero", 1 << 32), ("allocated and zero", (1 << 32) | 1)):
        yield Case(f"subclusters {name} in a compressed cluster",
                   I().subclusters(0, at(DATA) | COMPRESSED, bitmap), check=2,
                   says=("ERROR compressed cluster 0 with non-zero subcluster allocation bitmap, entry=0x4000000000050000",
                         "Leaked cluster 5 refcount=1 reference=0"))
    yield Case("subclusters of a misplaced cluster", I().subclusters(0, (at(DATA) + 512) | COPIED, 1), check=2,
               says=("ERROR offset=50200: Data cluster is not properly aligned; L2 entry corrupted.",
                     "ERROR cluster 6 refcount=1 reference=2"))


def unsupported_cases():
    I = Image
    because = "this feature is not supported"
    yield Case("external data file that is missing", I().put(72, "Q", 4).extension(DATA_FILE, b"/nonexistent/x"),
               check_refused="Could not open '/nonexistent/x': No such file or directory")
    yield Case("external data file without a name", I().put(72, "Q", 4),
               check_refused="'data-file' is required for this image")
    yield Case("raw data file without a data file", I().put(88, "Q", 2),
               check_refused="data-file-raw requires a data file")


def table_place_cases():
    I = Image
    beyond = "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset {} size {}"
    yield Case("refcount table of no clusters", I().put(56, "I", 0), info=1, check=2,
               says=("ERROR cluster 0 refcount=0 reference=1",))
    yield Case("refcount table too large", I().put(56, "I", 129), refused="Reference count table too large")
    yield Case("refcount table unaligned", I().put(48, "Q", CLUSTER + 1),
               refused="Reference count table offset invalid")
    yield Case("refcount table at the end of the world", I().put(48, "Q", 2**63 - CLUSTER),
               refused="Reference count table offset invalid")
    yield Case("refcount table beyond the file", I().put(48, "Q", 1 << 40), check=2,
               says=(beyond.format("0x10000000000", "0x10000"),))
    yield Case("refcount table on the header", I().put(48, "Q", 0), check=2)
    yield Case("L1 too large", I().put(36, "I", 4194305), refused="Active L1 table too large")
    yield Case("L1 of all ones", I().put(36, "I", 0xffffffff), refused="Active L1 table too large")
    yield Case("L1 too small", I().put(36, "I", 0), refused="L1 table is too small")
    yield Case("L1 unaligned", I().put(40, "Q", 512), refused="Active L1 table offset invalid")
    yield Case("L1 at the end of the world", I().put(40, "Q", 1 << 63), refused="Active L1 table offset invalid")
    yield Case("L1 beyond the file", I().put(40, "Q", 1 << 40), check=2,
               says=(beyond.format("0x10000000000", "0x8"), "Leaked cluster 3 refcount=1 reference=0"))
    yield Case("L1 on the header", I().put(40, "Q", 0), check=2,
               says=("ERROR found L1 entry with reserved bits set: 514649fb00000003",))
    yield Case("L1 as large as can be", I().put(36, "I", 4194304), check=2,
               says=(beyond.format("0x30000", "0x2000000"),))


def mapping_cases():
    I = Image
    beyond = "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset {} size {}"
    first = at(DATA)
    yield Case("data unaligned", I().l2(0, COPIED | first | 512), check=2,
               says=("ERROR offset=50200: Data cluster is not properly aligned; L2 entry corrupted.",
                     "ERROR cluster 6 refcount=1 reference=2"))
    yield Case("preallocated zero unaligned", I().l2(0, COPIED | first | 513), check=2,
               says=("ERROR offset=50200: Preallocated cluster is not properly aligned; L2 entry corrupted.",))
    yield Case("L2 entry with reserved bits", I().l2(0, COPIED | first | 1 << 60 | 2), check=2,
               says=("ERROR found l2 entry with reserved bits set: 9000000000050002",))
    yield Case("zero cluster with reserved bits", I().l2(9, 1 << 60 | 3), check=2,
               says=("ERROR found l2 entry with reserved bits set: 1000000000000003",))
    yield Case("copied flag alone", I().l2(9, COPIED))
    yield Case("zero flag in version 2", I().put(4, "I", 2).l2(9, 1))
    yield Case("copied flag missing", I().l2(0, first), check=2,
               says=("ERROR OFLAG_COPIED data cluster: l2_entry=50000 refcount=1",))
    yield Case("one cluster twice", I().l2(1, COPIED | first), check=2,
               says=("ERROR cluster 5 refcount=1 reference=2", "Leaked cluster 6 refcount=1 reference=0"))
    yield Case("data beyond the file", I().l2(0, COPIED | 1 << 40), check=2,
               says=(beyond.format("0x10000000000", "0x10000"),
                     "ERROR OFLAG_COPIED data cluster: l2_entry=8000010000000000 refcount=0"))
    yield Case("data just beyond the file", I().l2(0, COPIED | at(END)), check=2,
               says=(beyond.format("0x90000", "0x10000"),))
    for name, cluster in (("refcount table", REFCOUNT_TABLE), ("refcount block", REFCOUNT_BLOCK), ("L2 table", L2)):
        yield Case("data on the " + name, I().l2(0, COPIED | at(cluster)), check=2,
                   says=(f"ERROR cluster {cluster} refcount=1 reference=2",))
    yield Case("L2 table unaligned", I().put(at(L1), "Q", COPIED | at(L2) | 512)
               .put(at(DATA), "Q", COPIED | 2), check=2,
               says=("ERROR l2_offset=40200: Table is not cluster aligned; L1 entry corrupted",),
               differs="QEMU looks into a table that cannot be one")
    yield Case("L2 table is the L1 table", I().put(at(L1), "Q", COPIED | at(L1)), check=2)
    yield Case("L2 table beyond the file", I().put(at(L1), "Q", COPIED | 1 << 40), check=2,
               says=("ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=8000010000000000 refcount=0",))
    yield Case("L1 entry with reserved bits", I().put(at(L1), "Q", COPIED | at(L2) | 3), check=2,
               says=("ERROR found L1 entry with reserved bits set: 8000000000040003",))
    yield Case("L1 entry not copied", I().put(at(L1), "Q", at(L2)), check=2,
               says=("ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=40000 refcount=1",))
    yield Case("compressed", I().l2(0, COMPRESSED | first))
    yield Case("compressed and copied", I().l2(0, COMPRESSED | COPIED | first), check=2,
               says=("ERROR: coffset=0x50000: copied flag must never be set for compressed clusters",))
    yield Case("compressed beyond the file", I().l2(0, COMPRESSED | 1 << 40), check=2,
               says=(beyond.format("0x10000000000", "0x200"),))
    yield Case("compressed across the end", I().l2(0, COMPRESSED | 255 << 54 | at(END) - 512), check=2,
               says=(beyond.format("0x8fe00", "0x20000"),))


def refcount_cases():
    I = Image
    yield Case("L2 table not counted", I().count(L2, 0), check=2, says=("ERROR cluster 4 refcount=0 reference=1",))
    yield Case("data not counted", I().count(DATA, 0), check=2, says=("ERROR cluster 5 refcount=0 reference=1",))
    yield Case("data counted twice", I().count(DATA, 2), check=2,
               says=("Leaked cluster 5 refcount=2 reference=1",
                     "ERROR OFLAG_COPIED data cluster: l2_entry=8000000000050000 refcount=2"))
    yield Case("leak", I().grow(at(END + 2)).count(END + 1, 1), check=3,
               says=(f"Leaked cluster {END + 1} refcount=1 reference=0",))
    yield Case("leak past the file", I().count(END + 90, 1))
    table = at(REFCOUNT_TABLE)
    yield Case("refcount block beyond the file", I().put(table + 8, "Q", 1 << 40), check=2,
               says=("ERROR refcount block 1 is outside image",))
    yield Case("refcount block unaligned", I().put(table, "Q", at(REFCOUNT_BLOCK) + 512), check=1,
               says=("ERROR refcount block 0 is not cluster aligned; refcount table entry corrupted",
                     "Can't get refcount for cluster 3: Input/output error"))
    yield Case("second refcount block unaligned", I().put(table + 8, "Q", at(REFCOUNT_BLOCK) + 512), check=2)
    yield Case("refcount table entry with reserved bits", I().put(table, "Q", at(REFCOUNT_BLOCK) + 1), check=2,
               says=("ERROR refcount table entry 0 has reserved bits set",))
    yield Case("refcount block twice", I().put(table + 8, "Q", at(REFCOUNT_BLOCK)), check=2,
               says=("ERROR refcount block 1 refcount=2",))
    yield Case("refcount block missing", I().put(table, "Q", 0), check=2)
    yield Case("refcount block on the L1 table", I().put(table, "Q", at(L1)), check=2)


def snapshot_cases():
    I = Image
    prefix = "QEMU puts its name before this line"
    yield Case("snapshots beyond the file", I().put(60, "I", 1).put(64, "Q", 1 << 40), check=2,
               says=("ERROR snapshot table entry 0 is incomplete",))
    yield Case("too many snapshots", I().put(60, "I", 65537), info=1, check=1, differs=prefix)
    yield Case("snapshot table unaligned", I().put(60, "I", 1).put(64, "Q", 512), info=1, check=1, differs=prefix)
    yield Case("snapshot table at the end of the world", I().put(60, "I", 1).put(64, "Q", 1 << 63), info=1, check=1,
               differs=prefix)
    yield Case("snapshot with too much extra data", I().snapshots((at(L1), 1, 1032)), info=1, check=1, differs=prefix)
    yield Case("snapshot without extra data", I().snapshots((at(L1), 1, 0)), check=2,
               says=("ERROR snapshot table entry 0 is incomplete",))
    yield Case("snapshot of an unaligned L1", I().snapshots((at(L1) + 8, 1, 16)), check=2,
               says=("ERROR snapshot 1 (snap) l1_offset=0x30008: L1 table is not cluster aligned; "
                     "snapshot table entry corrupted",))
    yield Case("snapshot of a huge L1", I().snapshots((at(L1), 0xffffffff, 16)), check=2,
               says=("ERROR snapshot 1 (snap) l1_size=0xffffffff: L1 table is too large; "
                     "snapshot table entry corrupted",))
    yield Case("snapshot that shares the active L1", I().snapshots((at(L1), 1, 16)), check=2,
               says=("ERROR cluster 3 refcount=1 reference=2", "ERROR cluster 5 refcount=1 reference=2"))


def truncated_cases():
    whole = len(Image().bytes)
    for length in (104, 112, 512, CLUSTER, at(REFCOUNT_BLOCK), at(L1), at(L1) + 8, at(L2) + 100, at(DATA) + 1,
                   whole - CLUSTER, whole - CLUSTER + 1, whole - 1):
        image = Image().cut(length)
        # What begins less than a cluster past the end counts as there: an L1 of one entry does.
        intact = length > whole - CLUSTER or length == at(L1)
        yield Case(f"cut to {length} bytes", image, check=0 if intact else 2)


def run(program, *arguments):
    done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", timeout=60)
    return done.returncode, done.stdout, done.stderr


def without_disk_size(text):
    # How much a file takes on its medium depends on when one looks.
    return [line for line in text.splitlines() if not line.startswith("disk size")]


class Runner:
    def __init__(self, platter, qemu, directory):
        self.platter, self.qemu = platter, qemu
        self.path = os.path.join(directory, "x.qcow2")
        self.failures = 0
        self.cases = 0
        self.differences = []

    def fail(self, case, why):
        self.failures += 1
        print(f"FAILED {case.name}: {why[:MAX_MESSAGE]}")

    def expect_refusal(self, case, ours, message):
        expected = f"qemu-img: Could not open '{self.path}': {message}\n"
        if ours[0] != 1 or ours[2] != expected:
            self.fail(case, f"expected status 1 and {expected!r}, got {ours[0]} and {ours[2]!r}")

    def run(self, case):
        self.cases += 1
        with open(self.path, "wb") as file:
            file.write(case.image.bytes)
        agrees = True
        for command in ("info", "check"):
            arguments = [command, "-f", "qcow2", self.path]
            ours = run(self.platter, *arguments)
            theirs = run(self.qemu, *arguments)
            if ours[0] < 0:
                self.fail(case, f"{command} died of signal {-ours[0]}")
            message = case.refused or (case.check_refused if command == "check" else None)
            if message is not None:
                self.expect_refusal(case, ours, message)
            elif ours[0] != (case.check if command == "check" else case.info):
                self.fail(case, f"{command} ended with status {ours[0]}: {ours[2]!r}")
            elif command == "check":
                for line in case.says:
                    if line not in ours[2].splitlines():
                        self.fail(case, f"check did not say {line!r}, but {ours[2]!r}")
            same = (ours[0] == theirs[0] and without_disk_size(ours[1]) == without_disk_size(theirs[1])
                    and ours[2] == theirs[2])
            if not same:
                agrees = False
                if case.differs is None:
                    self.fail(case, f"{command}: qemu-img: {theirs}\n  platter: {ours}")
        if agrees and case.differs is not None:
            self.fail(case, f"no longer differs ({case.differs})")
        if case.differs is not None:
            self.differences.append(f"{case.name}: {case.differs}")


def chain_with_a_loop(runner, directory):
    """A chain that comes back to itself is refused by what opens it, with one line and promptly."""
    names = [os.path.join(directory, name) for name in ("a.qcow2", "b.qcow2")]
    for path, backing in ((names[0], b"b.qcow2"), (names[1], b"a.qcow2")):
        image = Image().extension(BACKING_FORMAT, b"qcow2").put(8, "Q", 1024).put(16, "I", len(backing))
        with open(path, "wb") as file:
            file.write(image.raw(1024, backing).bytes)
    for arguments in (["map", names[0]], ["info", "--backing-chain", names[0]]):
        status, _, errors = run(runner.platter, *arguments)
        runner.cases += 1
        if status != 1 or len(errors.splitlines()) != 1:
            runner.fail(Case("loop", None), f"{arguments[0]}: status {status}, {errors!r}")


def main():
    platter = sys.argv[1]
    qemu = "/usr/bin/qemu-img"
    with tempfile.TemporaryDirectory(prefix="badinput") as directory:
        runner = Runner(platter, qemu, directory)
        for group in (header_cases, extension_cases, subcluster_cases, unsupported_cases, table_place_cases, mapping_cases,
                      refcount_cases, snapshot_cases, truncated_cases):
            for case in group():
                runner.run(case)
        chain_with_a_loop(runner, directory)
    print("differs from qemu-img:", *runner.differences, sep="\n  ")
    print(f"{runner.cases} cases, {runner.failures} failures, {len(runner.differences)} known differences")
    return 1 if runner.failures else 0


if __name__ == "__main__":
    sys.exit(main())
