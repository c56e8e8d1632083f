"""The images that the cases work on, made once by QEMU's own tools.

Each case gets fresh copies of those that its command line names, and of what those stand on.
"""

import pathlib
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import peers  # noqa: E402
import fixtures_overlaps
import fixtures_subclusters

CLUSTER = 65536

# Image -> images that it cannot be opened without.
DEPENDS = {
    "overlay.qcow2": ["base.qcow2"],
    "top.qcow2": ["overlay.qcow2", "base.qcow2"],
    "rawbacked.qcow2": ["raw.img"],
    "short.qcow2": ["base.qcow2"],
    "loop.qcow2": ["loop2.qcow2"],
    "datafile.qcow2": ["datafile.raw"],
    "sub/over.qcow2": ["base.qcow2"],
    "nofmt.qcow2": ["base.qcow2"],
    "bitmaps-top.qcow2": ["bitmaps.qcow2"],
    **fixtures_subclusters.DEPENDS,
}


class Builder:
    """Makes the fixtures in one directory."""

    def __init__(self, directory, qemu_img):
        self.directory = pathlib.Path(directory)
        self.qemu_img = qemu_img

    def img(self, *words):
        subprocess.run([self.qemu_img, *words], cwd=self.directory, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=peers.environment())

    def io(self, image, *commands, fmt="qcow2", killed=False):
        words = ["qemu-io", "-f", fmt]
        for command in commands:
            words += ["-c", command]
        ended = subprocess.run([*words, image], cwd=self.directory, stdout=subprocess.DEVNULL)
        assert (ended.returncode != 0) == killed, words

    def create(self, name, size, *options):
        self.img("create", "-q", "-f", "qcow2", *options, name, size)

    def copy(self, source, target):
        shutil.copyfile(self.directory / source, self.directory / target)

    def patch(self, name, offset, data):
        with open(self.directory / name, "r+b") as image:
            image.seek(offset)
            image.write(data)

    def truncate(self, name, size):
        with open(self.directory / name, "r+b") as image:
            image.truncate(size)

    def build_encrypted(self):
        """Passphrase "abc". QEMU's own measuring of time fails on a busy machine now and then."""
        def create(fmt, name, size, *options):
            words = ["create", "-q", "-f", fmt, "--object", "secret,id=s,data=abc", "-o", ",".join(options), name, size]
            for _ in range(19):
                try:
                    return self.img(*words)
                except subprocess.CalledProcessError as error:
                    if b"accurate CPU usage" not in error.stderr:
                        raise
            return self.img(*words)

        def fill(options):
            subprocess.run(["qemu-io", "--object", "secret,id=s,data=abc", "--image-opts", options, "-c", "write -P 1 64k 128k",
                            "-c", "write -P 2 1000 5000"], cwd=self.directory, check=True, stdout=subprocess.DEVNULL)

        create("luks", "vault.luks", "1M", "key-secret=s", "iter-time=10")
        fill("driver=luks,key-secret=s,file.filename=vault.luks")
        create("luks", "essiv.luks", "1M", "key-secret=s", "iter-time=10", "cipher-mode=cbc", "ivgen-alg=essiv", "hash-alg=sha1")
        for name, kind in (("vault.qcow2", ("encrypt.format=luks", "encrypt.iter-time=10")), ("aes.qcow2", ("encrypt.format=aes",))):
            create("qcow2", name, "4M", "encrypt.key-secret=s", *kind)
            fill(f"driver=qcow2,encrypt.key-secret=s,file.filename={name}")

    def build(self):
        self.build_encrypted()
        self.build_plain()
        self.build_rules()
        self.build_chains()
        self.build_kinds()
        self.build_damaged()
        fixtures_subclusters.build(self)
        fixtures_overlaps.build(self)

    def build_plain(self):
        self.img("create", "-q", "-f", "raw", "raw.img", "1M")
        self.io("raw.img", "write -P 1 64k 128k", "write -P 7 512k 4k", fmt="raw")
        self.img("create", "-q", "-f", "raw", "hole.img", "1M")
        (self.directory / "odd.img").write_bytes(b"\x01" * 1000)
        (self.directory / "zero-length.img").write_bytes(b"")
        (self.directory / "text").write_bytes(b"\0AbC ~\x7f\x80\xff")
        self.create("empty.qcow2", "64M")
        self.create("data.qcow2", "4M")
        self.io("data.qcow2", "write -P 1 64k 128k", "write -P 2 1M 64k", "write -z 2M 64k")
        self.img("convert", "-O", "raw", "data.qcow2", "data.img")
        self.create("other.qcow2", "4M")
        self.io("other.qcow2", "write -P 1 64k 128k", "write -P 3 1M 64k")
        self.create("larger.qcow2", "5M")
        self.io("larger.qcow2", "write -P 1 64k 128k", "write -P 2 1M 64k")
        self.create("largerdata.qcow2", "5M")
        self.io("largerdata.qcow2", "write -P 1 64k 128k", "write -P 2 1M 64k", "write -P 9 4608k 64k")
        (self.directory / "sub").mkdir()

    def build_rules(self):
        """Configurations of blkdebug."""
        def write(name, *lines):
            (self.directory / name).write_text("".join(line + "\n" for line in lines))

        error, none = "[inject-error]", 'event = "none"'
        write("rules.conf", "# the first read, and every write but the first", error, 'event = "read_aio"',
              'errno = "28"', 'once = "on"', "[set-state]", 'event = "write_aio"', 'state = "1"', 'new_state = "3"',
              error, 'event = "write_aio"', 'state = "3"')
        write("named.conf", '[inject-error "one"]', none)
        write("empty.conf")
        write("event.conf", error, 'event = "foo"')
        write("group.conf", "[foo]", none)
        write("none.conf", none)
        write("unquoted.conf", error, "event = none")

    def build_chains(self):
        self.create("base.qcow2", "4M")
        self.io("base.qcow2", "write -P 1 64k 128k", "write -P 2 1M 64k", "write -z 2M 64k")
        backed = ["-b", "base.qcow2", "-F", "qcow2"]
        self.img("create", "-q", "-f", "qcow2", *backed, "overlay.qcow2")
        self.io("overlay.qcow2", "write -P 3 128k 64k", "discard 1M 64k", "write -z 3M 64k")
        self.img("create", "-q", "-f", "qcow2", "-b", "overlay.qcow2", "-F", "qcow2", "top.qcow2")
        self.io("top.qcow2", "write -P 4 256k 64k")
        self.img("create", "-q", "-f", "qcow2", *backed, "short.qcow2", "6M")
        self.img("create", "-q", "-f", "qcow2", "-b", "raw.img", "-F", "raw", "rawbacked.qcow2")
        self.img("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", "sub/over.qcow2")
        self.img("create", "-q", "-f", "qcow2", "-u", "-b", "nowhere.qcow2", "-F", "qcow2", "orphan.qcow2", "1M")
        self.img("create", "-q", "-f", "qcow2", "-u", "-b", "loop2.qcow2", "-F", "qcow2", "loop.qcow2", "1M")
        self.img("create", "-q", "-f", "qcow2", "-u", "-b", "loop.qcow2", "-F", "qcow2", "loop2.qcow2", "1M")
        self.img("create", "-q", "-f", "qcow2", *backed, "nofmt.qcow2")
        # The header extension that names the backing format becomes one that nobody knows.
        self.patch("nofmt.qcow2", 104, struct.pack(">I", 0x12345678))

    def build_kinds(self):
        self.create("v2.qcow2", "4M", "-o", "compat=0.10")
        self.io("v2.qcow2", "write -P 1 64k 128k")
        self.create("lazy.qcow2", "4M", "-o", "lazy_refcounts=on")
        self.create("bits1.qcow2", "4M", "-o", "refcount_bits=1")
        self.create("bits64.qcow2", "4M", "-o", "refcount_bits=64")
        self.io("bits64.qcow2", "write -P 1 64k 128k")
        self.create("tiny.qcow2", "1M", "-o", "cluster_size=512")
        self.io("tiny.qcow2", "write -P 1 1k 3k", "write -P 2 64k 512")
        self.create("big.qcow2", "64M", "-o", "cluster_size=2M")
        self.create("meta.qcow2", "16M", "-o", "preallocation=metadata")
        self.img("convert", "-c", "-O", "qcow2", "data.qcow2", "zlib.qcow2")
        self.img("convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", "data.qcow2", "zstd.qcow2")
        self.create("extended.qcow2", "4M", "-o", "extended_l2=on")
        self.create("datafile.qcow2", "1M", "-o", "data_file=datafile.raw")
        self.create("snapshot.qcow2", "1M")
        self.img("snapshot", "-c", "first", "snapshot.qcow2")
        self.create("snapshots.qcow2", "4M")
        self.io("snapshots.qcow2", "write -P 1 64k 128k")
        self.img("snapshot", "-c", "a", "snapshots.qcow2")
        self.io("snapshots.qcow2", "write -P 2 128k 128k")
        self.img("snapshot", "-c", "3", "snapshots.qcow2")
        self.img("snapshot", "-c", "b", "snapshots.qcow2")
        self.io("snapshots.qcow2", "write -P 3 1M 64k")
        self.create("bits1data.qcow2", "4M", "-o", "refcount_bits=1")
        self.io("bits1data.qcow2", "write -P 1 64k 128k")
        self.create("bitmap.qcow2", "1G")
        self.img("bitmap", "--add", "bitmap.qcow2", "coarse")
        self.img("bitmap", "--add", "-g", "512", "bitmap.qcow2", "fine")
        self.build_bitmaps()
        self.copy("empty.qcow2", "encrypted.qcow2")
        self.patch("encrypted.qcow2", 32, struct.pack(">I", 1))  # AES
        for kind in ("vmdk", "vdi"):
            self.img("create", "-q", "-f", kind, "foreign." + kind, "1M")

    def build_bitmaps(self):
        writes = ("write -P 1 64k 128k", "discard 1M 64k", "write -z 3M 100k")
        self.create("bitmaps.qcow2", "4M")
        for name, options in (("b0", ()), ("fine", ("-g", "512")), ("off", ("--disable", "-g", "1M"))):
            self.img("bitmap", "--add", *options, "bitmaps.qcow2", name)
        self.io("bitmaps.qcow2", *writes)
        self.create("other-bitmaps.qcow2", "4M", "-o", "cluster_size=4k")
        self.img("bitmap", "--add", "-g", "8k", "other-bitmaps.qcow2", "o")
        self.io("other-bitmaps.qcow2", "write -P 2 2M 1M")
        self.copy("bitmaps.qcow2", "broken-bitmaps.qcow2")
        self.io("broken-bitmaps.qcow2", "write -P 3 512k 64k", "sigraise 9", killed=True)
        self.copy("bitmaps.qcow2", "snapped-bitmaps.qcow2")
        self.img("snapshot", "-c", "s", "snapped-bitmaps.qcow2")
        # A writer that knows no bitmaps has cleared the autoclear bit.
        self.copy("bitmaps.qcow2", "stale-bitmaps.qcow2")
        self.patch("stale-bitmaps.qcow2", 88, bytes(8))
        self.img("create", "-q", "-f", "qcow2", "-b", "bitmaps.qcow2", "-F", "qcow2", "bitmaps-top.qcow2")
        self.img("bitmap", "--add", "bitmaps-top.qcow2", "t")
        self.io("bitmaps-top.qcow2", "write -P 4 2M 100k")
        self.create("huge.qcow2", "4P", "-o", "cluster_size=2M")

    def build_damaged(self):
        def damaged(name, *patches, source="data.qcow2"):
            self.copy(source, name)
            for offset, data in patches:
                self.patch(name, offset, data)

        refcount_block, l2_table = 2 * CLUSTER, 4 * CLUSTER
        damaged("leak.qcow2", (refcount_block + 16, b"\0\1\0\1"), source="empty.qcow2")
        damaged("leakdata.qcow2", (refcount_block + 10, b"\0\2"))
        damaged("unreferenced.qcow2", (refcount_block + 10, b"\0\0"))
        damaged("beyond.qcow2", (l2_table + 16, struct.pack(">Q", 1 << 63 | 0x100000)))
        damaged("unaligned.qcow2", (l2_table + 16, struct.pack(">Q", 1 << 63 | 0x50200)))
        damaged("reserved.qcow2", (l2_table + 16, struct.pack(">Q", 1 << 63 | 0x50002)))
        damaged("dirty.qcow2", (72, struct.pack(">Q", 1)))
        damaged("corruptbit.qcow2", (72, struct.pack(">Q", 2)))
        damaged("unknownbit.qcow2", (72, struct.pack(">Q", 1 << 40)))
        damaged("badversion.qcow2", (4, struct.pack(">I", 9)))
        damaged("badclusterbits.qcow2", (20, struct.pack(">I", 40)))
        damaged("hugel1.qcow2", (36, struct.pack(">I", 0x7fffffff)))
        damaged("shortl1.qcow2", (36, struct.pack(">I", 0)))
        damaged("l1unaligned.qcow2", (40, struct.pack(">Q", 0x30010)))
        damaged("badreftable.qcow2", (48, struct.pack(">Q", 0x10008)))
        damaged("badrefbits.qcow2", (96, struct.pack(">I", 9)))
        damaged("badheaderlength.qcow2", (100, struct.pack(">I", 1 << 20)))
        damaged("badbackingname.qcow2", (8, struct.pack(">QI", 0x7fffffff00000000, 5)))
        damaged("longbackingname.qcow2", (8, struct.pack(">QI", 512, 5000)))
        damaged("truncated.qcow2")
        self.truncate("truncated.qcow2", 3 * CLUSTER)
        damaged("header.qcow2")
        self.truncate("header.qcow2", 50)
