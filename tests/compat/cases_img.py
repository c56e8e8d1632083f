"""The part of the table that is about measure, dd, bench and --object."""

from cases import accept, cases

CREATE_WORDS = accept("what create and measure refuse, ours refuses in the same words in both")
USAGE = accept("7.2 prints its whole help and exits as if all were well", "stdout", "stderr", "status")
NOTHING_LEFT = accept("QEMU leaves a half-made target behind", "files")
QUIET = accept("7.2 does not heed -q", "stdout")
PAST_IMAGE = accept("our message says that the request leaves the image, where QEMU's says 'Input/output error'")
OTHER_OBJECTS = accept("the list of object types is our own", "stdout")

# ---- measure

cases("measure/size",
      "measure --size 1G", "measure --size 1G -O raw", "measure --size 513", "measure --size 0", "measure --size 7E",
      *[f"measure -O qcow2 --size {size}" for size in ("0", "1", "513", "64k", "1M", "1G", "123456789", "1T", "1P")],
      *[f"measure -O qcow2 --size 10G -o cluster_size={size}" for size in ("512", "4k", "64k", "2M")],
      *[f"measure -O qcow2 --size 10G -o cluster_size=4k,refcount_bits={bits}" for bits in (1, 2, 4, 8, 16, 32, 64)],
      "measure -O qcow2 --size 1G --output=json", "measure --size 1G --output=json", "measure --size 1G --output=human",
      "measure -O qcow2 --size 1G -o preallocation=off", "measure -O qcow2 --size 1G -o preallocation=metadata",
      "measure -O qcow2 --size 1G -o preallocation=falloc", "measure -O qcow2 --size 1G -o preallocation=full",
      "measure -O qcow2 --size 1G -o compat=0.10", "measure -O qcow2 --size 1G -o compat=1.1,lazy_refcounts=on",
      "measure -O qcow2 --size 1G -o compression_type=zstd", "measure -O qcow2 --size 1G -o size=2G",
      "measure -O qcow2 --size 1G -o nocow=on", "measure -O raw --size 1G -o preallocation=full",
      "measure -O qcow2 --size 1G -o backing_file=data.qcow2,backing_fmt=qcow2", "measure --size 1G -U",
      "measure --size 1G --size 2G", "measure -O qcow2 -o cluster_size=4k -o cluster_size=8k --size 1G",
      )

cases("measure/file",
      *[f"measure {name}" for name in ("raw.img", "odd.img", "zero-length.img", "data.qcow2", "overlay.qcow2", "short.qcow2")],
      *[f"measure -O qcow2 {name}" for name in ("raw.img", "hole.img", "odd.img", "zero-length.img", "empty.qcow2", "data.qcow2",
                                                "overlay.qcow2", "top.qcow2", "short.qcow2", "rawbacked.qcow2", "v2.qcow2",
                                                "tiny.qcow2", "big.qcow2", "meta.qcow2", "zlib.qcow2", "zstd.qcow2",
                                                "snapshot.qcow2", "bitmap.qcow2")],
      *[f"measure -O qcow2 -o cluster_size={size} {name}" for size in ("512", "2M") for name in ("tiny.qcow2", "data.qcow2", "top.qcow2")],
      "measure -O qcow2 --output=json data.qcow2", "measure -O qcow2 -o compat=0.10 bitmap.qcow2", "measure bitmap.qcow2",
      "measure -O qcow2 -o cluster_size=512 bitmap.qcow2", "measure -O qcow2 -o preallocation=full data.qcow2",
      "measure -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 overlay.qcow2", "measure -f raw -O qcow2 data.qcow2",
      "measure -f qcow2 -O qcow2 data.qcow2", "measure -U -O qcow2 data.qcow2", "measure -O qcow2 -o size=1G data.qcow2",
      "measure --image-opts -O qcow2 driver=qcow2,file.filename=data.qcow2", "measure -O qcow2 --image-opts driver=raw,offset=64k,file.filename=raw.img",
      "measure --object secret,id=s,data=x -O qcow2 data.qcow2",
      )

cases("measure/bad",
      "measure", "measure a b", ("measure --size", USAGE), "measure --size frob", "measure --size 9E", "measure --size -1", "measure data.qcow2 --size 1G",
      "measure --size 1G -f raw", "measure --size 1G --image-opts", "measure --size 1G -l first", "measure -O frob --size 1G",
      "measure -O file --size 1G", "measure -O null-co --size 1G", "measure --output=frob --size 1G",
      "measure -O qcow2 -o frob=1 --size 1G", "measure -o frob=1 --size 1G", "measure -O qcow2 -o , --size 1G", "measure -O qcow2 -o '' --size 1G",
      "measure -O qcow2 -o help --size 1G", "measure -O qcow2 -o cluster_size=abc --size 1G", "measure -O qcow2 -o cluster_size=3 --size 1G",
      ("measure -O qcow2 -o compat=frob --size 1G", CREATE_WORDS), ("measure -O qcow2 -o preallocation=frob --size 1G", CREATE_WORDS),
      "measure -O qcow2 -o refcount_bits=3 --size 1G", "measure -O qcow2 --size 7E", "measure -O qcow2 -o cluster_size=512 --size 1T",
      ("measure -O qcow2 -o compat=0.10,lazy_refcounts=on --size 1G",
       accept("7.2 measures an image that it would refuse to create", "stdout", "stderr", "status")),
      "measure -O qcow2 -o extended_l2=on --size 1G", "measure -O qcow2 -o data_file=x --size 1G",
      "measure nowhere", "measure sub", "measure -f frob data.qcow2", "measure -f qcow2 raw.img", "measure --image-opts -f qcow2 data.qcow2",
      "measure -O frob nowhere", "measure -O qcow2 orphan.qcow2", "measure -O qcow2 truncated.qcow2",
      "measure -l first raw.img", "measure -l snapshot.frob=x data.qcow2",
      ("measure -z --size 1G", USAGE), ("measure --frob --size 1G", USAGE), "measure --object frob --size 1G",
      )

cases("measure/locked", "measure data.qcow2", "measure -U -O qcow2 data.qcow2", lock="data.qcow2")

# ---- dd

cases("dd",
      "dd if=raw.img of=x.img", "dd if=data.qcow2 of=x.img", "dd -O qcow2 if=data.qcow2 of=x.qcow2", "dd -f qcow2 -O qcow2 if=overlay.qcow2 of=x.qcow2",
      "dd if=odd.img of=x.img", "dd if=zero-length.img of=x.img", "dd -O qcow2 if=zero-length.img of=x.qcow2", "dd -f raw if=data.qcow2 of=x.img",
      "dd bs=1M if=data.qcow2 of=x.img", "dd bs=1k count=3 if=data.qcow2 of=x.img", "dd bs=64k skip=1 count=2 if=data.qcow2 of=x.img",
      "dd bs=64k skip=2 if=data.qcow2 of=x.img", "dd -O qcow2 bs=64k skip=1 count=3 if=data.qcow2 of=x.qcow2", "dd count=0 if=data.qcow2 of=x.img",
      "dd skip=0 if=raw.img of=x.img", "dd bs=1000 if=odd.img of=x.img", "dd bs=1000 count=3 skip=1 if=raw.img of=x.img", "dd bs=1000 count=3 skip=1 if=data.qcow2 of=x.img",
      "dd bs=1 skip=65537 count=999 if=data.qcow2 of=x.img", "dd bs=999 -O qcow2 if=raw.img of=x.qcow2", "dd bs=1M skip=4 if=data.qcow2 of=x.img",
      "dd bs=1M skip=5 if=data.qcow2 of=x.img", "dd bs=1M skip=2 count=2 if=data.qcow2 of=x.img", "dd bs=1M skip=3 count=2 if=data.qcow2 of=x.img",
      "dd skip=1G bs=1G if=data.qcow2 of=x.img", "dd count=9223372036854775807 bs=64k if=raw.img of=x.img", "dd bs=2 bs=64k count=1 if=raw.img of=x.img",
      "dd if=nowhere if=raw.img of=x.img", "dd -U if=data.qcow2 of=x.img", "dd --image-opts if=driver=qcow2,file.filename=data.qcow2 of=x.img",
      "dd --force-share if=data.qcow2 of=x.img", "dd --object secret,id=s,data=x if=raw.img of=x.img", "dd if=raw.img of=file:x.img", "dd if=raw.img of=empty.qcow2",
      "dd if=short.qcow2 of=x.img", "dd if=zlib.qcow2 of=x.img",
      )

cases("dd/bad",
      "dd", "dd if=raw.img", "dd of=x.img", "dd raw.img x.img", "dd if=raw.img of=x.img frob=1", "dd frob if=raw.img of=x.img", "dd if of=x.img",
      "dd isize=1 if=raw.img of=x.img", "dd osize=1 if=raw.img of=x.img", "dd bs=0 if=raw.img of=x.img", "dd bs=3G if=raw.img of=x.img", "dd bs=x if=raw.img of=x.img",
      "dd bs=-1 if=raw.img of=x.img", "dd bs= if=raw.img of=x.img", "dd bs=9E if=raw.img of=x.img", "dd count=x if=raw.img of=x.img", "dd count=9E if=raw.img of=x.img",
      "dd count=-1 if=raw.img of=x.img", "dd skip=x if=raw.img of=x.img", "dd skip=9E if=raw.img of=x.img", "dd if= of=x.img", "dd if=raw.img of=", "dd if=nowhere of=x.img",
      "dd -f frob if=raw.img of=x.img", "dd -f qcow2 if=raw.img of=x.img", "dd -O frob if=raw.img of=x.img", "dd -O null-co if=raw.img of=x.img",
      "dd --image-opts -f raw if=raw.img of=x.img", "dd -z if=raw.img of=x.img", "dd --frob if=raw.img of=x.img", "dd -f", "dd if=raw.img of=nodir/x.img",
      "dd if=raw.img of=sub", "dd if=raw.img of=frob:bar", "dd if=frob:bar of=x.img", "dd if=sub of=x.img", "dd -O qcow2 if=data.qcow2 of=data.qcow2",
      ("dd -O raw if=raw.img of=raw.img", accept("7.2 empties the image that it is about to read; ours refuses", "stderr", "status", "files")),
      "dd if=orphan.qcow2 of=x.img", "dd if=truncated.qcow2 of=x.img", "dd --object frob if=raw.img of=x.img",
      ("dd if=unaligned.qcow2 of=x.img", accept("our message says what is corrupt, and where; no half-made target stays", "stderr", "files")),
      )

cases("dd/locked", "dd if=data.qcow2 of=x.img", "dd -U if=data.qcow2 of=x.img", "dd -O qcow2 if=raw.img of=data.qcow2",
      lock="data.qcow2")

# ---- bench

cases("bench",
      "bench -c 100 data.qcow2", "bench -c 100 -w data.qcow2", "bench -c 100 -d 1 -w --pattern=65 -s 4k data.qcow2", "bench -c 64 -w --pattern=0x41 -s 64k data.qcow2",
      "bench -c 10 -f raw raw.img", "bench -c 30 -f raw -w --pattern=66 -S 60k -d 1 raw.img", "bench -c 10 -s 64k -o 1M data.qcow2", "bench -c 10 -S 8k data.qcow2",
      "bench -c 10 -S 0 data.qcow2", "bench -c 10 -S 1 data.qcow2", "bench -c 0 data.qcow2", "bench -c 10 -s 0 data.qcow2", ("bench -q -c 10 data.qcow2", QUIET), ("bench -q -w -c 10 data.qcow2", QUIET),
      "bench -c 10 -w --flush-interval=64 data.qcow2", "bench -c 10 -w -d 2 --flush-interval=4 data.qcow2", "bench -c 10 -w -d 2 --flush-interval=4 --no-drain data.qcow2",
      "bench -c 10 --no-drain data.qcow2", "bench -c 10 -t none data.qcow2", "bench -c 10 -t writethrough -w data.qcow2", "bench -c 10 -n -t none data.qcow2",
      "bench -c 10 -i native -t none data.qcow2", "bench -c 10 -i io_uring data.qcow2", "bench -c 10 -i threads data.qcow2", "bench -c 10 -U data.qcow2",
      "bench -c 10 --image-opts driver=qcow2,file.filename=data.qcow2", "bench -c 10 -f raw data.qcow2", "bench -c 4 -d 4 -s 1M -w --pattern=7 data.qcow2", "bench data.qcow2",
      "bench -c 10 --pattern=65 data.qcow2", "bench -c 10 -f qcow2 overlay.qcow2", "bench -c 10 -d 100 -w overlay.qcow2",
      rules=("seconds",))

cases("bench/bad",
      "bench", "bench a b", "bench nowhere", "bench -c x data.qcow2", "bench -c -1 data.qcow2", "bench -c 1k data.qcow2", "bench -c 4294967297 data.qcow2", "bench -d x data.qcow2",
      "bench -s x data.qcow2", "bench -s 3G data.qcow2", "bench -s -1 data.qcow2", "bench -S x data.qcow2", "bench -S 3G data.qcow2", "bench -o x data.qcow2", "bench -o 9E data.qcow2",
      "bench --pattern=300 -w data.qcow2", "bench --pattern=x -w data.qcow2", "bench --flush-interval=x -w data.qcow2", "bench --flush-interval=-1 -w data.qcow2",
      "bench --flush-interval=64 data.qcow2", "bench -w --flush-interval=2 data.qcow2", "bench -i frob data.qcow2", "bench -i native data.qcow2", "bench -n data.qcow2",
      "bench -t frob data.qcow2", "bench -U -w data.qcow2", "bench --image-opts -f qcow2 data.qcow2", "bench -f frob data.qcow2", "bench -f qcow2 raw.img", "bench -z", "bench --frob a",
      "bench -c", "bench --object frob data.qcow2", ("bench -s 8M -c 2 data.qcow2", PAST_IMAGE), ("bench -o 8M -c 2 data.qcow2", PAST_IMAGE),
      ("bench -w -f raw -o 1M -c 2 raw.img", PAST_IMAGE),
      ("bench -c 1 zero-length.img", accept("7.2 divides by the size of an empty image and dies", "stdout", "stderr", "status")),
      "bench -c 1 truncated.qcow2",
      rules=("seconds",))

cases("bench/locked", "bench -c 1 data.qcow2", "bench -c 1 -U data.qcow2", "bench -c 1 -w data.qcow2", lock="data.qcow2", rules=("seconds",))

# ---- --object

_SECRETS = ["secret,id=a,data=x", "secret,data=x", "secret,id=a", "secret,id=a,data=x,file=raw.img", "secret,id=a,file=odd.img", "secret,id=a,file=nowhere",
            "secret,id=a,data=aHVudGVyMg==,format=base64", "secret,id=a,data=!!!,format=base64", "secret,id=a,data=x,format=frob", "secret,id=a,data=x,frob=1",
            "secret,id=1a,data=x", "secret,id=,data=x", "secret,id=a,data=x,keyid=b", "frob,id=a", "''", "qom-type=secret,id=a,data=x", "secret,id,data=x", "secret,id=a,data=",
            "secret,id=a,data=x,,y", "'{\"qom-type\":\"secret\",\"id\":\"a\",\"data\":\"x\"}'", "secret,help"]
_THROTTLES = ["id=t", "id=t,limits.bps-total=1000", "id=t,x-bps-total=1000,x-bps-total-max=2000,x-bps-total-max-length=3", "id=t,limits.bps-total=10M", "id=t,x-bps-total=10M",
              "id=t,limits.bps-total=1000,limits.bps-read=1000", "id=t,limits.frob=1", "id=t,limits.bps-total-max=10", "id=t,limits.bps-total=1000,limits.bps-total-max=10",
              "id=t,limits.iops-size=10", "id=t,x-bps-total=-1", "id=t,limits.bps-total=-1", "id=t,limits.bps-total-max-length=10", "id=t,limits.bps-total=2000000000000000",
              "frob=1,id=t", "id=t,limits.iops-total=100,limits.iops-size=4096"]
cases("object",
      *[f"info --object {text} data.qcow2" for text in _SECRETS], *[f"info --object throttle-group,{text} data.qcow2" for text in _THROTTLES],
      "info --object secret,id=a,data=x --object secret,id=a,data=y data.qcow2", "info --object secret,id=a,data=x --object secret,id=b,data=y data.qcow2",
      "info --object iothread data.qcow2", "info --object iothread,id=i,frob=1 data.qcow2", "info --object iothread,id=i,poll-max-ns=x data.qcow2",
      ("info --object iothread,id=i data.qcow2", accept("qemu-img has no I/O threads to define; ours takes the object", "stdout", "stderr", "status")),
      ("info --object '{\"qom-type\":\"secret\"' data.qcow2", accept("our JSON parser says where the error is")),
      ("info --object help data.qcow2", OTHER_OBJECTS), ("convert --object help", OTHER_OBJECTS),
      "info --object tls-creds-anon,id=t data.qcow2",
      *[f"{command}" for command in ("check --object frob data.qcow2", "compare --object frob data.qcow2 data.img", "map --object frob data.qcow2",
                                     "resize --object frob data.qcow2 8M", "convert --object frob data.qcow2 x.img", "create --object frob x.img 1M",
                                     "create --object secret,id=a,data=x x.img 1M", "check --object secret,id=a,data=x data.qcow2", "info --object", "info --object frob")],
      )

# ---- snapshot

PLAIN_ERROR = accept("our message has the reason, not a number")
SNAPSHOT_RULES = ("date", "icount")

cases("snapshot",
      "snapshot -l snapshot.qcow2", "snapshot snapshot.qcow2", "snapshot -l data.qcow2", "snapshot -l raw.img", "snapshot -q -l snapshot.qcow2",
      "snapshot -U -l snapshot.qcow2", "snapshot --image-opts -l driver=qcow2,file.filename=snapshot.qcow2", "snapshot --object secret,id=a,data=x -l snapshot.qcow2",
      *[f"snapshot -c new {name}" for name in ("empty.qcow2", "data.qcow2", "overlay.qcow2", "v2.qcow2", "lazy.qcow2", "bits64.qcow2", "tiny.qcow2",
                                               "big.qcow2", "meta.qcow2", "zlib.qcow2", "zstd.qcow2", "snapshot.qcow2", "rawbacked.qcow2")],
      "snapshot -q -c new data.qcow2", "snapshot -c '' data.qcow2", "snapshot -c 'a b' data.qcow2", "snapshot -c " + "n" * 300 + " data.qcow2",
      "snapshot --image-opts -c new driver=qcow2,file.filename=data.qcow2",
      "snapshot -a first snapshot.qcow2", "snapshot -a 1 snapshot.qcow2", "snapshot -q -a first snapshot.qcow2", "snapshot -d first snapshot.qcow2", "snapshot -d 1 snapshot.qcow2",
      "snapshot -q -d first snapshot.qcow2", "snapshot -a b snapshots.qcow2", "snapshot -a 2 snapshots.qcow2", "snapshot -d 2 snapshots.qcow2", "snapshot -d b snapshots.qcow2",
      "snapshot -d 3 snapshots.qcow2", "snapshot -a 3 snapshots.qcow2", "snapshot -c c snapshots.qcow2", "snapshot -l snapshots.qcow2", "info snapshots.qcow2", "check snapshots.qcow2",
      "measure -O qcow2 -l 1 snapshots.qcow2", "measure -O qcow2 -l b snapshots.qcow2", "measure -l snapshot.id=1 snapshots.qcow2", "measure -l snapshot.name=b snapshots.qcow2",
      "measure -O qcow2 -l snapshot.id=1,snapshot.name=a snapshots.qcow2", "measure -O qcow2 -l nobody snapshots.qcow2", "measure -l snapshot.id=1,snapshot.name=b snapshots.qcow2",
      rules=SNAPSHOT_RULES)

cases("snapshot/bad",
      "snapshot", "snapshot a b", "snapshot -l nowhere", "snapshot -c x nowhere", "snapshot -c", "snapshot -z", "snapshot --frob a", "snapshot -f qcow2 -l data.qcow2",
      "snapshot -l -c x data.qcow2", "snapshot -c a -c b data.qcow2", "snapshot -l -l data.qcow2", "snapshot -a x -d x data.qcow2", "snapshot -U -c x data.qcow2",
      "snapshot -c x raw.img", "snapshot -d x raw.img", "snapshot --image-opts -c x driver=raw,file.filename=raw.img",
      ("snapshot --image-opts -a x driver=raw,file.filename=raw.img", accept("7.2 fails without a word", "stderr")),
      "snapshot -a nobody data.qcow2", "snapshot -d nobody data.qcow2", "snapshot -a nobody snapshot.qcow2", "snapshot -d nobody snapshot.qcow2", "snapshot --object frob -l data.qcow2",
      ("snapshot -c x bits1.qcow2", {}), ("snapshot -c x bits1data.qcow2", accept("7.2 leaves leaked clusters behind where counts are too narrow", "files")),
      "snapshot -c x corruptbit.qcow2", "snapshot -c x orphan.qcow2", "snapshot -c x truncated.qcow2",
      rules=SNAPSHOT_RULES)

cases("snapshot/locked", "snapshot -l data.qcow2", "snapshot -U -l data.qcow2", "snapshot -c x data.qcow2", lock="data.qcow2", rules=SNAPSHOT_RULES)

# ---- check -r

MOVED = accept("a repair writes new tables and switches to them at once: the image ends elsewhere", "stdout")
ALL_AT_ONCE = accept("counts and flags are repaired at once, QEMU rebuilds or goes step by step: other counts, other lines",
                     "stdout", "stderr", "files")
CAREFUL = accept("leaks are repaired only where nothing is corrupt", "stdout", "stderr", "status", "files")

cases("check/repair",
      *[f"check -r {what} {name}" for what in ("leaks", "all") for name in (
          "empty.qcow2", "data.qcow2", "overlay.qcow2", "v2.qcow2", "bits64.qcow2", "zlib.qcow2", "meta.qcow2", "snapshots.qcow2", "dirty.qcow2",
          "corruptbit.qcow2", "truncated.qcow2", "header.qcow2", "nowhere", "orphan.qcow2", "unknownbit.qcow2")],
      ("check -r leaks leakdata.qcow2", MOVED), ("check -r all leakdata.qcow2", MOVED), ("check --output=json -r all leakdata.qcow2", MOVED),
      "check -q -r all leakdata.qcow2", "check --output=json -r all data.qcow2",
      ("check -r all unreferenced.qcow2", ALL_AT_ONCE), ("check -r leaks unreferenced.qcow2", CAREFUL), ("check -r all beyond.qcow2", ALL_AT_ONCE),
      ("check -r leaks beyond.qcow2", CAREFUL), ("check -r all unaligned.qcow2", ALL_AT_ONCE), ("check -r leaks unaligned.qcow2", CAREFUL),
      ("check -r all reserved.qcow2", ALL_AT_ONCE), ("check -r leaks reserved.qcow2", CAREFUL),
      "check -r", "check -r frob data.qcow2", "check -r all", "check -U -r all data.qcow2", "check -r all -f raw raw.img", "check -r all raw.img",
      "check -r all --image-opts driver=qcow2,file.filename=data.qcow2", "check -r all -f qcow2 data.qcow2", "check -r all -T none data.qcow2",
      )
cases("check/repair/locked", "check -r all data.qcow2", lock="data.qcow2")

# ---- amend

NOT_YET = accept("what this version cannot amend is refused, and the image is left alone", "stdout", "stderr", "status", "files")
HEAD_FIRST = accept("the order of checks differs")

cases("amend",
      *[f"amend -o {options} {name}" for name in ("data.qcow2", "v2.qcow2", "overlay.qcow2", "bits64.qcow2", "tiny.qcow2", "lazy.qcow2", "empty.qcow2", "zlib.qcow2", "meta.qcow2")
        for options in ("compat=1.1", "lazy_refcounts=off", "size=8M", "compat=1.1,lazy_refcounts=on", "compat=1.1,refcount_bits=8", "compat=1.1,refcount_bits=64")],
      *[f"amend -o compat=0.10 {name}" for name in ("data.qcow2", "v2.qcow2", "overlay.qcow2", "tiny.qcow2", "lazy.qcow2", "empty.qcow2", "zlib.qcow2", "meta.qcow2", "bits64.qcow2",
                                                    "rawbacked.qcow2", "short.qcow2")],
      "amend -o compat=v3 v2.qcow2", "amend -o compat=v2 data.qcow2", "amend -o refcount_bits=16 bits64.qcow2", "amend -o refcount_bits=1 data.qcow2",
      "amend -o refcount_bits=16,compat=0.10 bits64.qcow2", "amend -o size=1M data.qcow2", "amend -o size=4M data.qcow2", "amend -o size=0 data.qcow2",
      "amend -o compat=1.1 -o size=8M v2.qcow2", "amend -f qcow2 -t none -o compat=1.1 v2.qcow2", "amend -q -o compat=1.1 v2.qcow2", "amend --force -o compat=1.1 v2.qcow2",
      ("amend -p -o compat=1.1 v2.qcow2", {"rules": ("progress",)}), "amend -p -q -o compat=1.1 v2.qcow2", "amend --image-opts -o compat=1.1 driver=qcow2,file.filename=v2.qcow2",
      "amend -o lazy_refcounts=on data.qcow2",
      ("amend -o compat=0.10 snapshots.qcow2", NOT_YET),
      ("amend -o refcount_bits=8 snapshots.qcow2", {}), ("amend -o size=8M snapshots.qcow2", {}),
      rules=("date", "icount"))

cases("amend/help",
      "amend -f qcow2 -o help", "amend -o help data.qcow2", "amend -o '?' data.qcow2", "amend -f raw -o help", "amend -f frob -o help", "amend -o help", "amend -o help raw.img",
      "amend -f qcow2 -o compat=1.1,help",
      )

cases("amend/bad",
      "amend", "amend data.qcow2", "amend -o compat=1.1", "amend -o compat=1.1 a b", "amend -o compat=1.1 nowhere", "amend -o , data.qcow2", "amend -o '' data.qcow2",
      "amend -o compat=frob data.qcow2", "amend -o frob=1 data.qcow2", "amend -o cluster_size=4k data.qcow2", "amend -o preallocation=full data.qcow2",
      "amend -o encryption=on data.qcow2", "amend -o compression_type=zstd data.qcow2", "amend -o extended_l2=on data.qcow2", "amend -o refcount_bits=3 data.qcow2",
      "amend -o refcount_bits=128 data.qcow2", "amend -o refcount_bits=x data.qcow2", "amend -o refcount_bits=8 v2.qcow2", "amend -o refcount_bits=8,compat=0.10 data.qcow2",
      "amend -o compat=0.10,lazy_refcounts=on data.qcow2", "amend -o lazy_refcounts=on v2.qcow2", "amend -o lazy_refcounts=maybe data.qcow2", "amend -o size=x data.qcow2",
      "amend -o size=4194305 data.qcow2", "amend -o backing_file=x data.qcow2", "amend -o backing_fmt=raw data.qcow2", "amend -o data_file=x data.qcow2",
      "amend -o data_file_raw=on data.qcow2", "amend -o encrypt.state=active data.qcow2", "amend -o encrypt.keyslot=1 data.qcow2", "amend -o compat=0.10 zstd.qcow2",
      "amend -o refcount_bits=1 snapshots.qcow2", "amend -f raw -o size=1M raw.img", "amend -o size=1M raw.img", "amend -f frob -o size=1M data.qcow2", "amend -t frob -o compat=1.1 data.qcow2",
      "amend --image-opts -f qcow2 -o compat=1.1 data.qcow2", "amend -z data.qcow2", "amend --frob data.qcow2", "amend --object frob -o compat=1.1 data.qcow2", "amend -o compat=1.1 corruptbit.qcow2",
      "amend -o compat=1.1 orphan.qcow2",
      )

cases("amend/locked", "amend -o compat=1.1 data.qcow2", lock="data.qcow2")
