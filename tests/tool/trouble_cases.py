"""The commands that trouble_test.py makes trouble for: what each needs, what it may leave, and what it makes.

Images are made and judged by the reference programs.
"""

import json
import os

from scratch import KIB, MIB, run, sha

# Offsets, in clusters of 64 KiB, that the images' data begins at.
DATA = [(0, 300 * KIB), (1 * MIB, 700 * KIB + 512), (3 * MIB, 64 * KIB)]


def qcow2(name, size, *commands, options=""):
    words = ["-o", options] if options else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *words, name, size)
    change(name, *commands)


def change(name, *commands):
    run("qemu-io", "-f", "qcow2", *(word for command in commands for word in ("-c", command)), name)


def raw_of(image, *words):
    """What the image reads as, through its chain."""
    output = "../read"
    run("qemu-img", "convert", "-O", "raw", *words, image, output)
    with open(output, "rb") as file:
        return file.read()


def facts_of(image):
    return json.loads(run("qemu-img", "info", "--output=json", image).stdout)


def snapshots_of(image):
    return [snapshot["name"] for snapshot in facts_of(image).get("snapshots", [])]


def check(image, statuses=(0, 3)):
    """Clusters may be leaked, and nothing worse."""
    checked = run("qemu-img", "check", image, status=None)
    assert checked.returncode in statuses, f"{image}: {checked.stdout}{checked.stderr}"


def same(one, other, what):
    if one != other:
        at = next((at for at, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
        raise AssertionError(f"{what} differs at {at} ({len(one)} and {len(other)} bytes)")


class Case:
    """One command. `words` has IMAGE where a description may stand for the name `image`."""

    words = ()
    image = "a.qcow2"  # None: a description cannot stand for it
    image_is_written = True
    format = "qcow2"
    makes = None  # a file that is not there before
    changes = ()  # files that are changed in place
    failure_statuses = (1,)
    needs_space = True  # it cannot do without a free cluster in the file
    told_on_stdout = False
    judged_by_reports = False  # it prints what it finds besides
    same_output = False  # it prints the same each time
    has_progress = False  # tells how far it is when SIGUSR1 asks
    in_sandbox = False  # a process that may do next to nothing does its work

    def prepare(self):
        self.make_source()

    def make_source(self):
        qcow2("a.qcow2", "4M", *(f"write -P {5 + i} {at} {size}" for i, (at, size) in enumerate(DATA)), "write -z 2M 1M")

    def before(self):
        """What sound() and done() compare with; once, after prepare()."""

    def sound(self):
        """What holds of `changes` after any trouble."""

    def is_done(self):
        """Whether a command that cannot be repeated has been done in spite of the trouble."""
        return False

    def can_be_done(self):
        """Whether what trouble may leave, by its nature, lets the command be repeated."""
        return True

    def done(self):
        """What holds after success."""


# ---- Commands that only read


class Info(Case):
    words = ("info", "--output=json", "IMAGE")
    same_output = True


class Map(Case):
    words = ("map", "--output=json", "IMAGE")
    same_output = True


class MapPicture(Case):
    words = ("map", "--chart", "IMAGE")
    same_output = True


class Check(Case):
    words = ("check", "IMAGE")
    same_output = True
    judged_by_reports = True


class Measure(Case):
    words = ("measure", "-O", "qcow2", "IMAGE")
    same_output = True


class Inspect(Case):
    words = ("inspect", "a.qcow2")
    same_output = True
    image = None
    in_sandbox = True


class SnapshotList(Case):
    words = ("snapshot", "-l", "IMAGE")
    same_output = True

    def prepare(self):
        self.make_source()
        run("qemu-img", "snapshot", "-c", "one", "a.qcow2")


class Compare(Case):
    words = ("compare", "IMAGE", "b.raw")
    has_progress = True
    same_output = True
    failure_statuses = (2, 3, 4)

    def prepare(self):
        self.make_source()
        run("qemu-img", "convert", "-O", "raw", "a.qcow2", "b.raw")


class BenchRead(Case):
    words = ("bench", "-c", "16", "-d", "4", "-s", "64k", "IMAGE")


class IoRead(Case):
    words = ("io", "-r", "-c", "read -P 5 0 300k", "-c", "read -P 7 3M 64k", "IMAGE")
    told_on_stdout = True


# ---- Commands that make an image


class Making(Case):
    makes = "new"

    def before(self):
        self.expected = raw_of("a.qcow2")

    def done(self):
        same(raw_of("new"), self.expected, "the new image")
        if facts_of("new")["format"] == "qcow2":
            check("new", (0,))


class Create(Making):
    words = ("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=4k", "new", "2M")
    image = None

    def before(self):
        self.expected = bytes(2 * MIB)


class CreateFull(Create):
    words = ("create", "-q", "-f", "raw", "-o", "preallocation=full", "new", "2M")


class CreateAllocated(Create):
    words = ("create", "-q", "-f", "qcow2", "-o", "preallocation=falloc", "new", "2M")


class CreateOverlay(Making):
    words = ("create", "-q", "-f", "qcow2", "-b", "a.qcow2", "-F", "qcow2", "new")
    image = None


class Convert(Making):
    has_progress = True
    words = ("convert", "-O", "qcow2", "IMAGE", "new")


class ConvertRaw(Making):
    words = ("convert", "-O", "raw", "-t", "writeback", "IMAGE", "new")


class ConvertCompressed(Making):
    words = ("convert", "-c", "-O", "qcow2", "IMAGE", "new")


class ConvertOverlay(Making):
    words = ("convert", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2", "IMAGE", "new")

    def prepare(self):
        qcow2("base.qcow2", "4M", "write -P 3 0 2M")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2")
        change("a.qcow2", "write -P 4 1M 300k", "write -z 3M 64k")


class ConvertFileSystemCopies(Making):
    words = ("convert", "-C", "-O", "raw", "a.raw", "new")
    image = None  # the file system copies past a filter

    def prepare(self):
        self.make_source()
        run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw")


class Dd(Making):
    words = ("dd", "-O", "qcow2", "bs=64k", "count=30", "skip=2", "if=IMAGE", "of=new")

    def before(self):
        self.expected = raw_of("a.qcow2")[2 * 64 * KIB:30 * 64 * KIB]


# ---- Commands that change an image


class Changing(Case):
    changes = ("a.qcow2",)

    def before(self):
        self.content = raw_of("a.qcow2")

    def sound(self):
        check("a.qcow2")
        same(raw_of("a.qcow2"), self.content, "a.qcow2")

    def done(self):
        self.sound()


class ConvertInto(Changing):
    """Into an image that exists: what it has of it when trouble comes is nobody's promise."""

    words = ("convert", "-n", "-O", "qcow2", "a.raw", "IMAGE")

    def prepare(self):
        self.make_source()
        run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw")
        qcow2("a.qcow2", "4M", "write -P 9 0 3M")

    def before(self):
        self.content = raw_of("a.raw", "-f", "raw")

    def sound(self):
        check("a.qcow2")

    def done(self):
        super().sound()


def first_refcount_block(file):
    file.seek(48)
    file.seek(int.from_bytes(file.read(8), "big"))
    return int.from_bytes(file.read(8), "big")


class RepairLeaks(Changing):
    words = ("check", "-r", "leaks", "IMAGE")
    judged_by_reports = True
    needs_space = False
    statuses_before = (3,)

    def prepare(self):
        self.make_source()
        with open("a.qcow2", "r+b") as file:
            self.damage(file)

    def damage(self, file):
        """Counts of clusters that nothing refers to."""
        end = file.seek(0, 2) // (64 * KIB)
        file.truncate((end + 5) * 64 * KIB)
        file.seek(first_refcount_block(file) + 2 * end)
        file.write(b"\0\1" * 5)

    def sound(self):
        check("a.qcow2", (0, *self.statuses_before))
        same(raw_of("a.qcow2"), self.content, "a.qcow2")

    def done(self):
        check("a.qcow2", (0,))
        same(raw_of("a.qcow2"), self.content, "a.qcow2")


class RepairAll(RepairLeaks):
    words = ("check", "-r", "all", "IMAGE")
    needs_space = True
    statuses_before = (2, 3)

    def damage(self, file):
        """A refcount block that counts nothing any more."""
        file.seek(first_refcount_block(file))
        file.write(bytes(64 * KIB))


class Resize(Changing):
    size = 6 * MIB
    old_size = 4 * MIB
    preallocation = "off"
    needs_space = False

    @property
    def words(self):
        return ("resize", "-q", f"--preallocation={self.preallocation}", "IMAGE", str(self.size))

    def sound(self):
        check("a.qcow2")
        content = raw_of("a.qcow2")
        assert len(content) in (self.old_size, self.size), len(content)
        kept = min(self.old_size, self.size)
        same(content[:kept], self.content[:kept], "a.qcow2")
        if len(content) > kept:
            assert self.size < self.old_size or not any(content[kept:]), "what was added is not zeroes"

    def is_done(self):
        return facts_of("a.qcow2")["virtual-size"] == self.size

    def done(self):
        self.sound()
        assert self.is_done()


class ResizeFar(Resize):
    """A larger L1 table."""

    size = 3 << 40
    needs_space = True

    def sound(self):
        check("a.qcow2")
        size = facts_of("a.qcow2")["virtual-size"]
        assert size in (self.old_size, self.size), size
        run("qemu-img", "dd", "-O", "raw", "bs=1M", "count=4", "if=a.qcow2", "of=../part")
        with open("../part", "rb") as file:
            same(file.read(), self.content, "a.qcow2")


class ResizeMetadata(Resize):
    preallocation = "metadata"


class ResizeAllocated(Resize):
    preallocation = "falloc"
    needs_space = True


class ResizeFull(Resize):
    preallocation = "full"
    needs_space = True


class ResizeShrink(Resize):
    words = ("resize", "-q", "--shrink", "IMAGE", str(1 * MIB))
    size = 1 * MIB


class ResizeRaw(Resize):
    words = ("resize", "-q", "-f", "raw", "--preallocation=full", "a.raw", str(6 * MIB))
    image = None
    image_is_written = False
    changes = ("a.raw",)
    needs_space = True

    def prepare(self):
        self.make_source()
        run("qemu-img", "convert", "-O", "raw", "a.qcow2", "a.raw")
        os.remove("a.qcow2")

    def content_now(self):
        with open("a.raw", "rb") as file:
            return file.read()

    def before(self):
        self.content = self.content_now()

    def sound(self):
        content = self.content_now()
        same(content[:self.old_size], self.content, "a.raw")
        assert not any(content[self.old_size:]), "what was added is not zeroes"

    def is_done(self):
        return os.stat("a.raw").st_size == self.size


class SnapshotCreate(Changing):
    words = ("snapshot", "-c", "two", "IMAGE")

    def prepare(self):
        self.make_source()
        run("qemu-img", "snapshot", "-c", "one", "a.qcow2")
        change("a.qcow2", "write -P 9 0 100k", "write -P 10 3584k 64k")

    def sound(self):
        super().sound()
        assert snapshots_of("a.qcow2") in (["one"], ["one", "two"])

    def is_done(self):
        return "two" in snapshots_of("a.qcow2")

    def done(self):
        super().sound()
        assert snapshots_of("a.qcow2") == ["one", "two"]


class SnapshotApply(SnapshotCreate):
    words = ("snapshot", "-a", "one", "IMAGE")

    def before(self):
        super().before()
        self.snapshot = raw_of("a.qcow2", "-l", "snapshot.name=one")

    def sound(self):
        check("a.qcow2")
        content = raw_of("a.qcow2")
        assert content in (self.content, self.snapshot), "neither the disk as it was nor the snapshot"
        same(raw_of("a.qcow2", "-l", "snapshot.name=one"), self.snapshot, "the snapshot")

    def is_done(self):
        return False

    def done(self):
        check("a.qcow2")
        same(raw_of("a.qcow2"), self.snapshot, "a.qcow2")


class SnapshotDelete(SnapshotCreate):
    words = ("snapshot", "-d", "one", "IMAGE")

    def sound(self):
        Changing.sound(self)
        assert snapshots_of("a.qcow2") in (["one"], [])

    def is_done(self):
        return snapshots_of("a.qcow2") == []

    def done(self):
        Changing.sound(self)
        assert snapshots_of("a.qcow2") == []


class Amend(Changing):
    words = ("amend", "-q", "-o", "compat=0.10", "IMAGE")
    needs_space = False

    def sound(self):
        super().sound()
        assert facts_of("a.qcow2")["format-specific"]["data"]["compat"] in ("0.10", "1.1")

    def done(self):
        super().sound()
        assert facts_of("a.qcow2")["format-specific"]["data"]["compat"] == "0.10"


class AmendCounts(Changing):
    words = ("amend", "-q", "-o", "refcount_bits=64", "IMAGE")
    has_progress = True

    def done(self):
        super().sound()
        assert facts_of("a.qcow2")["format-specific"]["data"]["refcount-bits"] == 64


class AmendLazy(Changing):
    words = ("amend", "-q", "-o", "lazy_refcounts=on", "IMAGE")
    needs_space = False

    def done(self):
        super().sound()
        assert facts_of("a.qcow2")["format-specific"]["data"]["lazy-refcounts"]


def bitmaps_of(image):
    return {bitmap["name"]: bitmap["flags"] for bitmap in facts_of(image)["format-specific"]["data"].get("bitmaps", [])}


class BitmapAdd(Changing):
    """A bitmap that was in use when the command was killed may be left inconsistent, to be removed."""

    words = ("bitmap", "--add", "-g", "64k", "IMAGE", "two")
    after = {"one": ["auto"], "two": ["auto"]}

    def prepare(self):
        self.make_source()
        # No cluster of the file is free.
        change("a.qcow2", "write -P 10 2M 512k")
        run("qemu-img", "bitmap", "--add", "a.qcow2", "one")

    def sound(self):
        super().sound()
        assert set(bitmaps_of("a.qcow2")) in ({"one"}, set(self.after)), bitmaps_of("a.qcow2")

    def is_done(self):
        return bitmaps_of("a.qcow2") == self.after

    def can_be_done(self):
        return not any("in-use" in flags for flags in bitmaps_of("a.qcow2").values())

    def done(self):
        Changing.sound(self)
        assert self.is_done(), bitmaps_of("a.qcow2")


class BitmapRemove(BitmapAdd):
    words = ("bitmap", "--remove", "IMAGE", "one")
    after = {}
    needs_space = False

    def can_be_done(self):
        return True


class BitmapClear(BitmapAdd):
    words = ("bitmap", "--clear", "--disable", "IMAGE", "one")
    after = {"one": []}
    needs_space = False


class Writing(Changing):
    """Requests of a known pattern: each sector is what it was or what it is to be."""

    written = ()  # (offset, length, byte)

    def sound(self):
        check("a.qcow2")
        content = raw_of("a.qcow2")
        after = self.after()
        for at in range(0, len(content), 512):
            sector = content[at:at + 512]
            assert sector in (self.content[at:at + 512], after[at:at + 512]), f"sector at {at}"

    def after(self):
        content = bytearray(self.content)
        for offset, length, byte in self.written:
            content[offset:offset + length] = bytes([byte]) * length
        return bytes(content)

    def done(self):
        check("a.qcow2")
        same(raw_of("a.qcow2"), self.after(), "a.qcow2")


class BenchWrite(Writing):
    words = ("bench", "-w", "-q", "-c", "12", "-d", "3", "-s", "128k", "-o", "2M", "-t", "none", "--pattern=77", "IMAGE")
    written = ((2 * MIB, 12 * 128 * KIB, 77),)


class IoWrite(Writing):
    words = ("io", "-c", "write -P 20 0 64k", "-c", "write -P 21 2M 200k", "-c", "write -z -u 1M 256k", "-c", "write -P 22 3700k 1k",
             "-c", "flush", "IMAGE")
    written = ((0, 64 * KIB, 20), (2 * MIB, 200 * KIB, 21), (1 * MIB, 256 * KIB, 0), (3700 * KIB, 1 * KIB, 22))
    told_on_stdout = True


class Overlay(Changing):
    """a.qcow2 over base.qcow2; other.qcow2 beside them."""

    def prepare(self):
        qcow2("base.qcow2", "4M", "write -P 3 0 2M", "write -P 4 3M 200k")
        qcow2("other.qcow2", "4M", "write -P 3 0 1M", "write -P 6 1M 700k")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2")
        change("a.qcow2", "write -P 7 512k 256k", "write -z 1536k 64k", "write -P 8 2500k 100k")

    def backing(self):
        return facts_of("a.qcow2").get("backing-filename")

    def sound(self):
        super().sound()
        assert self.backing() in ("base.qcow2", self.new_backing), self.backing()

    def done(self):
        super().sound()
        assert self.backing() == self.new_backing


class Compact(Changing):
    has_progress = False
    words = ("compact", "-q", "IMAGE")
    needs_space = False

    def prepare(self):
        self.make_source()
        run("qemu-io", "-d", "unmap", "-f", "qcow2", "-c", "write -P 5 0 1M", "-c", "discard 64k 512k", "a.qcow2")


class Rebase(Overlay):
    has_progress = True
    words = ("rebase", "-b", "other.qcow2", "-F", "qcow2", "IMAGE")
    new_backing = "other.qcow2"


class RebaseCompressed(Overlay):
    words = ("rebase", "-c", "-b", "other.qcow2", "-F", "qcow2", "IMAGE")
    new_backing = "other.qcow2"


class RebaseFlat(Overlay):
    words = ("rebase", "-b", "", "IMAGE")
    new_backing = None


class RebaseUnsafe(Overlay):
    words = ("rebase", "-u", "-b", "copy.qcow2", "-F", "qcow2", "IMAGE")
    new_backing = "copy.qcow2"
    needs_space = False

    def prepare(self):
        super().prepare()
        run("cp", "base.qcow2", "copy.qcow2")


class Commit(Overlay):
    has_progress = True
    words = ("commit", "-q", "IMAGE")
    changes = ("a.qcow2", "base.qcow2")
    new_backing = "base.qcow2"

    def sound(self):
        check("base.qcow2")
        super().sound()

    def done(self):
        self.sound()
        same(raw_of("base.qcow2"), self.content, "base.qcow2")


class CommitKeep(Commit):
    words = ("commit", "-q", "-d", "IMAGE")
    image_is_written = False


CASES = {case.__name__: case for case in (
    Info, Map, MapPicture, Check, Measure, Inspect, SnapshotList, Compare, BenchRead, IoRead, Create, CreateFull, CreateAllocated,
    CreateOverlay, Convert, ConvertRaw, ConvertCompressed, ConvertOverlay, ConvertFileSystemCopies, Dd, ConvertInto, RepairLeaks,
    RepairAll, Resize, ResizeFar, ResizeMetadata, ResizeAllocated, ResizeFull, ResizeShrink, ResizeRaw, SnapshotCreate,
    SnapshotApply, SnapshotDelete, Amend, AmendCounts, AmendLazy, BitmapAdd, BitmapRemove, BitmapClear, BenchWrite, IoWrite, Compact, Rebase, RebaseCompressed, RebaseFlat,
    RebaseUnsafe, Commit, CommitKeep)}
