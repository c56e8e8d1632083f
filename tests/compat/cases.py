"""The table: invocations of qemu-img, good and bad, that ours must answer as QEMU's does."""

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A difference that is meant. `where`: which of stdout, stderr, status, files it touches."""
    reason: str
    where: tuple = ("stdout", "stderr")


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    command: str
    rules: tuple = ()
    needs: tuple = ()                 # images that the command line does not name
    lock: Optional[str] = None        # an image that a qemu-io holds open meanwhile
    lock_writing: bool = True
    script: Optional[str] = None      # what the program reads from standard input
    accepted: Optional[Accepted] = None


CASES = []


def cases(prefix, *rows, **common):
    """Each row is a command, or (command, {fields of Case}). Named prefix/1, prefix/2, ..."""
    for number, row in enumerate(rows, 1):
        command, fields = (row, {}) if isinstance(row, str) else row
        CASES.append(Case(f"{prefix}/{number}", command, **{**common, **fields}))


# ---- Accepted differences, each with its reason

OWN_TEXT = Accepted("help and version texts are our own", ("stdout",))


def accept(reason, *where):
    return {"accepted": Accepted(reason, where or ("stderr",))}


EARLY_VALUES = accept("the values of options are checked before anything is said or made",
                      "stdout", "stderr", "files")
JSON_NAME = accept("members of a json: name stand in the order given, not in that of a hash table", "stdout")
CORRUPTION = accept("our message says what is corrupt, where QEMU's says 'Input/output error'")
NOTHING_LEFT = accept("QEMU leaves a half-made target behind", "files")
PAST_END = accept("the bytes that round a raw image up to a sector are nowhere in the file: no offset", "stdout")

# ---- The program

cases("program",
      "", "frob", "''", "-z", "-T", "--frob info", "-T foo",
      ("--version", {"accepted": OWN_TEXT}),
      ("-V info", {"accepted": OWN_TEXT}),
      ("--help", {"accepted": OWN_TEXT}),
      ("info -h", {"accepted": OWN_TEXT}),
      ("resize --help raw.img 1M", {"accepted": OWN_TEXT}),
      )

# ---- create

cases("create/plain",
      "create x.img 1M", "create -f raw x.img 1.5k", "create -f raw x.img 0x1000", "create -f raw x.img 1b",
      "create -f raw x.img 0", "create -q -f raw x.img 513", "create -f file x.img 1M", "create -f raw file:x.img 1M",
      "create -f qcow2 x.qcow2 64M", "create -q -f qcow2 x.qcow2 64M", "create -f qcow2 'a b.qcow2' 1M",
      "create -f qcow2 x.qcow2 0", "create -f qcow2 x.qcow2 513", "create -f qcow2 x.qcow2 1T",
      "create -f qcow2 -o size=1.5M x.qcow2", "create -f qcow2 -o compat=0.10 x.qcow2 4M",
      "create -f qcow2 -o compat=1.1,lazy_refcounts=on x.qcow2 4M", "create -f qcow2 -o compat=v2 x.qcow2 4M",
      "create -f qcow2 -o cluster_size=512 x.qcow2 4M", "create -f qcow2 -o cluster_size=2M x.qcow2 4M",
      "create -f qcow2 -o refcount_bits=1 x.qcow2 4M", "create -f qcow2 -o refcount_bits=64 x.qcow2 4M",
      "create -f qcow2 -o preallocation=metadata x.qcow2 4M", "create -f qcow2 -o preallocation=falloc x.qcow2 4M",
      "create -f qcow2 -o preallocation=full -o cluster_size=4k x.qcow2 4M",
      "create -f qcow2 -o compression_type=zstd x.qcow2 4M",
      "create -f raw -o preallocation=full,nocow=off x.img 1M", "create -f raw -o preallocation=falloc x.img 1M",
      "create -f raw -o extent_size_hint=0 x.img 1M",
      "create -f qcow2 -o nocow=off x.qcow2 1M",
      "create -f qcow2 empty.qcow2 1M", "create -f raw raw.img 64k",
      )

cases("create/backing",
      "create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2", "create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2 8M",
      "create -f qcow2 -b base.qcow2 -F qcow2 x.qcow2 1M", "create -f qcow2 -b raw.img -F raw x.qcow2",
      "create -f qcow2 -b base.qcow2 -F raw x.qcow2", "create -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 x.qcow2",
      "create -f qcow2 -b base.qcow2 -F qcow2 -o backing_fmt=raw x.qcow2",
      "create -f qcow2 -o backing_file=a,,b,backing_fmt=raw -u x.qcow2 1M",
      "create -u -f qcow2 -b nowhere -F qcow2 x.qcow2 1M", "create -u -f qcow2 -b nowhere -F qcow2 x.qcow2",
      "create -u -f qcow2 -b nowhere x.qcow2 1M", "create -f qcow2 -b nowhere -F qcow2 x.qcow2",
      "create -f qcow2 -b nowhere -F qcow2 x.qcow2 1M", "create -f qcow2 -b nowhere x.qcow2",
      ("create -f qcow2 -b base.qcow2 x.qcow2",
       accept("7.2 leaves out the newline after its hint; ours ends the line")),
      ("create -f qcow2 -b raw.img x.qcow2 1M",
       accept("7.2 leaves out the newline after its hint; ours ends the line")),
      "create -f qcow2 -b x.qcow2 -F qcow2 x.qcow2 1M", "create -f qcow2 -F qcow2 x.qcow2 1M",
      "create -f qcow2 -b '' -F qcow2 x.qcow2 1M", "create -f raw -b base.qcow2 x.img 1M", "create -f raw -F raw x.img 1M",
      "create -f qcow2 -b base.qcow2 -F frob x.qcow2", 
      ("create -u -f qcow2 -b base.qcow2 -F frob x.qcow2 1M",
       accept("with -u ours takes formats that it does not know itself: others may", "stderr", "status", "files")),
      
      ("create -f qcow2 -b base.qcow2 -F qcow2 sub/x.qcow2", {}), "create -f qcow2 -b ../base.qcow2 -F qcow2 sub/x.qcow2",
      "create -f qcow2 -b file:base.qcow2 -F qcow2 x.qcow2", "create -f qcow2 -b frob:base -F qcow2 x.qcow2",
      "create -f qcow2 -b overlay.qcow2 -F qcow2 x.qcow2", "create -f qcow2 -b orphan.qcow2 -F qcow2 x.qcow2",
      "create -f qcow2 -b truncated.qcow2 -F qcow2 x.qcow2", "create -f qcow2 -o preallocation=full -b base.qcow2 -F qcow2 x.qcow2",
      )

cases("create/bad",
      "create", "create -f", "create --frob", "create -qz x.img 1M", "create x.img", "create -f qcow2 x.qcow2",
      "create x.img 1M 2M", "create -f frob x.img 1M", "create x.img 1Q", "create -- x.img -1", "create x.img 1e30",
      "create x.img 9E", "create x.img 99999999999999999999", "create x.img ''", "create -f qcow2 x.qcow2 7E",
      "create -f qcow2 -o cluster_size=512 x.qcow2 1T", "create -o size=1M x.img 1M", "create -o frob=1 x.img 1M",
      "create -f qcow2 -o frob=1 x.qcow2 1M", "create -o , x.img 1M", "create -o '' x.img 1M", "create -o a=1, x.img 1M",
      "create -f qcow2 -o cluster_size=abc x.qcow2 1M", "create -f qcow2 -o cluster_size=3 x.qcow2 1M",
      "create -f qcow2 -o cluster_size=4M x.qcow2 1M", "create -f qcow2 -o cluster_size=256 x.qcow2 1M",
      "create -f qcow2 -o cluster_size x.qcow2 1M", "create -f qcow2 -o lazy_refcounts=maybe x.qcow2 1M",
      "create -f qcow2 -o refcount_bits=x x.qcow2 1M", "create -f qcow2 -o refcount_bits=3 x.qcow2 1M",
      "create -f qcow2 -o refcount_bits=128 x.qcow2 1M", "create -f qcow2 -o refcount_bits=8,compat=0.10 x.qcow2 1M",
      "create -f qcow2 -o compat=frob x.qcow2 1M", "create -f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 1M",
      "create -f qcow2 -o preallocation=frob x.qcow2 1M", ("create -f raw -o preallocation=metadata x.img 1M", EARLY_VALUES),
      "create -f qcow2 -o compression_type=frob x.qcow2 1M", "create -f qcow2 -o compat=0.10,compression_type=zstd x.qcow2 1M",
      "create -f qcow2 -o size=-1 x.qcow2", "create -f qcow2 -o =1 x.qcow2 1M", "create -f null-co x 1M",
      "create frob:bar 1M", "create -f qcow2 frob:bar 1M", "create nodir/x.img 1M", "create -f qcow2 nodir/x.qcow2 1M",
      "create sub 1M", "create -f qcow2 sub 1M", "create 'json:{\"driver\":\"file\",\"filename\":\"x\"}' 1M",
      )

cases("create/locked",
      "create -f qcow2 data.qcow2 1M", "create -f raw raw.img 1M", lock="data.qcow2")
cases("create/locked-raw",
      ("create -f raw raw.img 1M",
       accept("7.2 empties a raw image under the program that writes to it; ours refuses", "stderr", "status", "files")),
      lock="raw.img")

cases("create/help",
      "create -f raw -o help", "create -f raw -o help x.img", "create -f raw -o '?'", "create -f file -o help",
      "create -f frob -o help", "create -f null-co -o help", "create -f raw -o help frob:bar", "create -f raw -o nocow=off,help x.img",
      ("create -f qcow2 -o help", {}), ("create -f qcow2 -o help x.qcow2", {}),
      )

# ---- info

_GOOD = ["raw.img", "hole.img", "odd.img", "zero-length.img", "empty.qcow2", "data.qcow2", "overlay.qcow2", "v2.qcow2",
         "lazy.qcow2", "bits1.qcow2", "bits64.qcow2", "tiny.qcow2", "big.qcow2", "zstd.qcow2", "meta.qcow2", "sub/over.qcow2",
         "orphan.qcow2", "dirty.qcow2", "corruptbit.qcow2", "nofmt.qcow2"]
cases("info/human", *[f"info {name}" for name in _GOOD])
cases("info/json", *[f"info --output=json {name}" for name in _GOOD])

cases("info/forms",
      "info --backing-chain top.qcow2", "info --backing-chain --output=json top.qcow2", "info --backing-chain rawbacked.qcow2",
      "info --backing-chain data.qcow2", "info --backing-chain --output json sub/over.qcow2",
      "info --backing-chain orphan.qcow2", "info --backing-chain loop.qcow2", "info --backing-chain nofmt.qcow2",
      "info -f raw data.qcow2", "info -f qcow2 data.qcow2", "info -U data.qcow2", "info --format=qcow2 data.qcow2",
      "info file:data.qcow2", "info --image-opts driver=qcow2,file.filename=data.qcow2",
      "info --image-opts driver=qcow2,file.driver=file,file.filename=data.qcow2", "info --image-opts data.qcow2",
      ("info --image-opts driver=raw,offset=512,file.filename=raw.img", JSON_NAME), "info --image-opts driver=raw,size=64k,file.filename=raw.img",
      "info 'json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"data.qcow2\"}}'",
      ("info --output=json 'json:{\"driver\":\"raw\",\"offset\":512,\"file\":{\"driver\":\"file\",\"filename\":\"raw.img\"}}'", JSON_NAME),
      ("info snapshot.qcow2", {"rules": ("date",)}), ("info --output=json snapshot.qcow2", {"rules": ("date",)}),
      )

cases("info/bad",
      "info", "info raw.img data.qcow2", "info nowhere", "info sub", "info --output=frob raw.img", "info --output",
      "info -f frob raw.img", "info -f qcow2 raw.img", "info --image-opts -f raw raw.img", "info --image-opts frob=bar",
      "info --image-opts driver=frob,file.filename=raw.img", "info --image-opts driver=qcow2,file.filename=nowhere",
      "info --image-opts driver=qcow2,frob=1,file.filename=data.qcow2", "info --image-opts driver=qcow2",
      "info -U --image-opts driver=qcow2,file.filename=data.qcow2,force-share=off", ("info 'json:{'", accept("our JSON parser says where the error is")), "info 'json:[]'",
      "info 'json:{\"driver\":\"qcow2\"}'", "info 'json:{\"driver\":\"frob\"}'", "info frob:bar", "info ''",
      *[f"info {name}" for name in (
          "unknownbit.qcow2", "badversion.qcow2", "badclusterbits.qcow2", "hugel1.qcow2", "shortl1.qcow2", "l1unaligned.qcow2",
          "badreftable.qcow2", "badrefbits.qcow2", "badheaderlength.qcow2", "badbackingname.qcow2", "longbackingname.qcow2",
          "truncated.qcow2", "header.qcow2")],
      )

cases("info/later",
      "info encrypted.qcow2", "info --output=json encrypted.qcow2", "info datafile.qcow2", "info extended.qcow2",
      "map encrypted.qcow2", "map datafile.qcow2", "map extended.qcow2",
      ("info foreign.vmdk", accept("vmdk comes later: it is taken for raw", "stdout", "stderr", "status")),
      ("info foreign.vdi", accept("vdi comes later: it is taken for raw", "stdout", "stderr", "status")),
      )

cases("info/locked", "info data.qcow2", "info -U data.qcow2", "info --output=json data.qcow2", lock="data.qcow2")
cases("info/shared", "info data.qcow2", lock="data.qcow2", lock_writing=False)

# ---- check

cases("check",
      *[f"check {name}" for name in ("empty.qcow2", "data.qcow2", "overlay.qcow2", "v2.qcow2", "bits1.qcow2", "bits64.qcow2",
                                     "tiny.qcow2", "big.qcow2", "meta.qcow2", "zlib.qcow2", "zstd.qcow2", "snapshot.qcow2", "leak.qcow2",
                                     "leakdata.qcow2", "unreferenced.qcow2", "beyond.qcow2", "unaligned.qcow2", "reserved.qcow2",
                                     "dirty.qcow2", "corruptbit.qcow2", "truncated.qcow2", "header.qcow2", "raw.img", "orphan.qcow2",
                                     "unknownbit.qcow2", "nowhere")],
      "check --output=json data.qcow2", "check --output=json zlib.qcow2", "check --output=json leakdata.qcow2",
      "check --output=json unreferenced.qcow2", "check --output=json raw.img", "check -q data.qcow2", "check -q leakdata.qcow2",
      "check -q raw.img", "check -q --output=json data.qcow2", "check -f qcow2 data.qcow2", "check -f raw data.qcow2", "check -T none data.qcow2",
      "check -T frob data.qcow2", "check -r frob data.qcow2", "check", "check data.qcow2 v2.qcow2", "check --output=frob data.qcow2",
      "check --image-opts driver=qcow2,file.filename=data.qcow2", "check --output=json --image-opts driver=qcow2,file.filename=data.qcow2",
      "check --image-opts -f qcow2 data.qcow2", "check -U data.qcow2", "check -f frob data.qcow2",
      )

cases("check/locked", "check data.qcow2", "check -U data.qcow2", lock="data.qcow2")

# ---- map

cases("map",
      *[f"map {name}" for name in ("raw.img", "hole.img", "odd.img", "zero-length.img", "empty.qcow2", "data.qcow2", "overlay.qcow2",
                                   "top.qcow2", "short.qcow2", "rawbacked.qcow2", "v2.qcow2", "tiny.qcow2", "meta.qcow2", "zlib.qcow2",
                                   "orphan.qcow2", "nowhere")],
      ("map --output=json odd.img", PAST_END),
      *[f"map --output=json {name}" for name in ("raw.img", "hole.img", "zero-length.img", "empty.qcow2", "data.qcow2",
                                                 "overlay.qcow2", "top.qcow2", "short.qcow2", "rawbacked.qcow2", "v2.qcow2",
                                                 "tiny.qcow2", "meta.qcow2", "zlib.qcow2", "zstd.qcow2", "beyond.qcow2")],
      "map -s 100k -l 100k overlay.qcow2", "map -s 100k -l 100k --output=json overlay.qcow2", "map --start-offset=1M data.qcow2",
      "map --max-length=1M --output=json data.qcow2", "map -s 5M data.qcow2", "map -s 5M --output=json data.qcow2",
      "map -s 1 -l 0 --output=json data.qcow2", "map -l 1k raw.img", "map -s -1 data.qcow2", "map -s frob data.qcow2",
      "map -l 9E data.qcow2", "map -l frob data.qcow2", "map", "map raw.img data.qcow2", "map --output=frob raw.img", "map -f raw --output=json data.qcow2",
      "map -f frob raw.img", "map --image-opts driver=qcow2,file.filename=data.qcow2", "map --image-opts -f raw raw.img", "map -U data.qcow2",
      "map -f qcow2 raw.img", "map --output=json --image-opts driver=raw,offset=64k,file.filename=raw.img", ("map unaligned.qcow2", CORRUPTION),
      )

cases("map/locked", "map data.qcow2", "map -U data.qcow2", lock="data.qcow2")

# ---- resize

cases("resize",
      "resize data.qcow2 8M", "resize data.qcow2 +1G", "resize -q data.qcow2 +1M", "resize data.qcow2 4M", "resize data.qcow2 +0",
      "resize --shrink data.qcow2 1M", "resize --shrink data.qcow2 -1M", "resize --shrink data.qcow2 -- -512", "resize data.qcow2 -1M",
      "resize data.qcow2 1M", "resize data.qcow2 -- -1M", "resize -f raw raw.img 2M", "resize -f raw raw.img 1234567", "resize raw.img +1M",
      "resize raw.img 64k", "resize -f raw --shrink raw.img 64k", "resize -f raw --preallocation=full raw.img 2M",
      "resize -f raw --preallocation=falloc raw.img 2M", "resize -f raw --preallocation=metadata raw.img 2M",
      "resize --preallocation=metadata data.qcow2 8M", "resize --preallocation=falloc data.qcow2 8M", "resize --preallocation=full data.qcow2 8M",
      "resize overlay.qcow2 8M", "resize short.qcow2 8M", "resize --shrink overlay.qcow2 2M", "resize v2.qcow2 8M", "resize tiny.qcow2 8M",
      "resize bits1.qcow2 1G", "resize bits64.qcow2 1G", "resize --image-opts driver=qcow2,file.filename=data.qcow2 8M",
      )

cases("resize/bad",
      "resize", "resize data.qcow2", "resize 1M", "resize data.qcow2 frob", "resize data.qcow2 +frob", "resize data.qcow2 ''", "resize data.qcow2 0",
      "resize data.qcow2 -4M", "resize data.qcow2 -5M", "resize data.qcow2 1M 2M", "resize --preallocation=frob data.qcow2 8M",
      "resize --preallocation=full data.qcow2 1M", "resize --shrink --preallocation=full data.qcow2 1M", "resize --preallocation data.qcow2 1M",
      ("resize data.qcow2 9E", accept("7.2 takes a size above 2^63 for a negative one; ours says that the size is too large")),
      ("resize data.qcow2 +9E", accept("7.2 takes a size above 2^63 for a negative one; ours says that the size is too large")),
      "resize data.qcow2 7E", "resize -f raw raw.img 7E", "resize -U data.qcow2 1M", "resize --frob data.qcow2 1M", "resize -f frob data.qcow2 1M",
      "resize -f qcow2 raw.img 1M", "resize nowhere 1M", "resize orphan.qcow2 2M", "resize corruptbit.qcow2 8M", "resize --image-opts -f qcow2 data.qcow2 1M",
      "resize sub 1M", "resize truncated.qcow2 8M",
      ("resize snapshot.qcow2 2M", {}),
      )

cases("resize/locked", "resize data.qcow2 8M", lock="data.qcow2")
cases("resize/shared", "resize data.qcow2 8M", lock="data.qcow2", lock_writing=False)

# ---- convert

cases("convert",
      "convert raw.img x.img", "convert -O qcow2 raw.img x.qcow2", "convert -f raw -O qcow2 raw.img x.qcow2", "convert data.qcow2 x.img",
      "convert -O raw data.qcow2 x.img", "convert -O qcow2 data.qcow2 x.qcow2", "convert -O qcow2 overlay.qcow2 x.qcow2", "convert top.qcow2 x.img",
      "convert -O qcow2 short.qcow2 x.qcow2", "convert -O qcow2 zlib.qcow2 x.qcow2", "convert -O qcow2 zstd.qcow2 x.qcow2", "convert tiny.qcow2 x.img",
      "convert -O qcow2 odd.img x.qcow2", "convert odd.img x.img", "convert -O qcow2 zero-length.img x.qcow2", "convert -O qcow2 -o compat=0.10 data.qcow2 x.qcow2",
      "convert -O qcow2 -o cluster_size=4k,refcount_bits=8 data.qcow2 x.qcow2", "convert -O qcow2 -o preallocation=metadata data.qcow2 x.qcow2",
      ("convert -p -O qcow2 empty.qcow2 x.qcow2", {"rules": ("progress",)}), "convert -q -p -O qcow2 data.qcow2 x.qcow2", "convert -S 0 -O qcow2 data.qcow2 x.qcow2",
      "convert -S 64k -O qcow2 raw.img x.qcow2", "convert -W -m 4 -O qcow2 data.qcow2 x.qcow2", "convert -t none -T none -O qcow2 data.qcow2 x.qcow2",
      "convert -t writeback -O qcow2 data.qcow2 x.qcow2", "convert -U -O qcow2 data.qcow2 x.qcow2", "convert -n -O qcow2 data.qcow2 empty.qcow2",
      "convert -n -f qcow2 -O raw raw.img raw.img", "convert -n -O raw tiny.qcow2 raw.img", "convert -O qcow2 -B base.qcow2 -F qcow2 overlay.qcow2 x.qcow2",
      "convert -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 overlay.qcow2 x.qcow2", "convert --image-opts -O qcow2 driver=qcow2,file.filename=data.qcow2 x.qcow2",
      "convert -n --target-image-opts data.qcow2 driver=qcow2,file.filename=empty.qcow2", "convert raw.img hole.img x.img", "convert -O qcow2 raw.img data.qcow2 x.qcow2",
      "convert -O qcow2 -o help", "convert -O raw -o help raw.img x.img",
      )

cases("convert/bad",
      "convert", "convert raw.img", "convert nowhere x.img", "convert -f frob raw.img x.img", "convert -O frob raw.img x.img", "convert -f qcow2 raw.img x.img",
      "convert raw.img nodir/x.img", "convert raw.img sub", "convert -O qcow2 -o frob=1 raw.img x.qcow2", "convert -O qcow2 -o cluster_size=3 raw.img x.qcow2",
      "convert -m 0 raw.img x.img", "convert -m 17 raw.img x.img", "convert -m frob raw.img x.img", "convert -S 1 raw.img x.img", "convert -S 17M raw.img x.img",
      "convert -S frob raw.img x.img", ("convert -t frob raw.img x.img", NOTHING_LEFT), "convert -T frob raw.img x.img", "convert -n -o compat=0.10 raw.img x.img",
      "convert -n raw.img nowhere.img", "convert -n -O qcow2 larger.qcow2 data.qcow2", "convert --target-image-opts raw.img driver=raw,file.filename=x.img",
      "convert --image-opts -f raw raw.img x.img", ("convert -O qcow2 -B nowhere -F qcow2 data.qcow2 x.qcow2", NOTHING_LEFT), "convert -B base.qcow2 overlay.qcow2 x.img",
      "convert -O qcow2 -B base.qcow2 overlay.qcow2 x.qcow2", "convert -C -S 4k raw.img x.img", "convert -c -C -O qcow2 raw.img x.qcow2", "convert -c raw.img x.img",
      "convert -o , raw.img x.img", "convert --frob raw.img x.img", "convert orphan.qcow2 x.img", "convert truncated.qcow2 x.img", 
      ("convert unaligned.qcow2 x.img",
       accept("our message says what is corrupt; no half-made target stays", "stderr", "files")),
      "convert -O qcow2 raw.img raw.img", "convert --target-is-zero raw.img x.img", "convert --skip-broken-bitmaps raw.img x.img", "convert -F qcow2 raw.img x.img",
      "convert -n -B base.qcow2 -O qcow2 overlay.qcow2 empty.qcow2",
      )

cases("convert/locked", "convert data.qcow2 x.img", "convert -U data.qcow2 x.img", "convert -O qcow2 raw.img data.qcow2",
      "convert -n -O qcow2 raw.img data.qcow2", lock="data.qcow2")

# ---- compare

cases("compare",
      "compare data.qcow2 data.qcow2", "compare data.qcow2 data.img", "compare -f qcow2 -F raw data.qcow2 data.img", "compare data.qcow2 other.qcow2",
      "compare data.qcow2 larger.qcow2", "compare larger.qcow2 data.qcow2", "compare data.qcow2 largerdata.qcow2", "compare -s data.qcow2 larger.qcow2",
      "compare -s data.qcow2 data.img", "compare -q data.qcow2 other.qcow2", "compare -q data.qcow2 data.img", ("compare -p data.qcow2 data.img", {"rules": ("progress",)}),
      "compare overlay.qcow2 base.qcow2", "compare -s data.qcow2 base.qcow2", "compare zlib.qcow2 data.qcow2", "compare odd.img raw.img", "compare raw.img hole.img",
      "compare -T none data.qcow2 data.img", "compare -U data.qcow2 data.img", "compare --image-opts driver=qcow2,file.filename=data.qcow2 driver=raw,file.filename=data.img",
      "compare", "compare data.qcow2", "compare a b c", "compare nowhere data.qcow2", "compare data.qcow2 nowhere", "compare -T frob data.qcow2 data.img",
      "compare -f frob data.qcow2 data.img", "compare -f raw data.qcow2 data.img", "compare -f qcow2 data.img data.qcow2", "compare --frob a b",
      "compare --image-opts -f raw a b", "compare truncated.qcow2 data.qcow2", ("compare unaligned.qcow2 data.qcow2", CORRUPTION), "compare odd.img zero-length.img",
      )

cases("compare/locked", "compare data.qcow2 data.img", "compare -U data.qcow2 data.img", lock="data.qcow2")
