"""The part of the table that is about convert's rarer options, rebase and commit."""

from cases import NOTHING_LEFT, accept, cases

cases("convert/compressed",
      "convert -c -O qcow2 raw.img x.qcow2", "convert -c -O qcow2 data.qcow2 x.qcow2", "convert -c -O qcow2 odd.img x.qcow2",
      "convert -c -O qcow2 zero-length.img x.qcow2", "convert -c -O qcow2 hole.img x.qcow2", "convert -c -O qcow2 tiny.qcow2 x.qcow2",
      *[f"convert -c -O qcow2 -o cluster_size={size} data.qcow2 x.qcow2" for size in ("512", "4k", "2M")],
      *[f"convert -c -O qcow2 -o refcount_bits={bits} data.qcow2 x.qcow2" for bits in (1, 2, 64)],
      "convert -c -O qcow2 -o compression_type=zstd data.qcow2 x.qcow2", "convert -c -O qcow2 -o compat=0.10 data.qcow2 x.qcow2",
      "convert -c -O qcow2 -o lazy_refcounts=on data.qcow2 x.qcow2", "convert -c -S 0 -O qcow2 data.qcow2 x.qcow2",
      "convert -c -S 64k -O qcow2 data.qcow2 x.qcow2", "convert -c -W -m 4 -O qcow2 data.qcow2 x.qcow2",
      "convert -c -t none -O qcow2 data.qcow2 x.qcow2", "convert -c -O qcow2 zlib.qcow2 x.qcow2", "convert -c -O qcow2 zstd.qcow2 x.qcow2",
      "convert -c -O qcow2 odd.img raw.img tiny.qcow2 x.qcow2", "convert -c -n -O qcow2 data.qcow2 empty.qcow2",
      "convert -c -O qcow2 -B base.qcow2 -F qcow2 overlay.qcow2 x.qcow2", "convert -c -O qcow2 top.qcow2 x.qcow2",
      "convert -c -O qcow2 -B base.qcow2 -F qcow2 -o cluster_size=2M overlay.qcow2 x.qcow2",
      "convert -c -O qcow2 -B base.qcow2 -F qcow2 short.qcow2 x.qcow2",
      ("convert -c -p -O qcow2 data.qcow2 x.qcow2", {"rules": ("progress",)}),
      "convert -c -O raw data.qcow2 x.img", "convert -c data.qcow2 x.img", "convert -c -n -O raw data.qcow2 raw.img",
      "convert -c -O qcow2 -o preallocation=metadata data.qcow2 x.qcow2", "convert -c -O qcow2 -o preallocation=off data.qcow2 x.qcow2",
      "convert -c -n -O qcow2 data.qcow2 other.qcow2", "convert -c -n -O qcow2 data.qcow2 zlib.qcow2",
      "convert -c -n --target-image-opts data.qcow2 driver=qcow2,file.filename=empty.qcow2",
      "convert -c -n --target-image-opts raw.img driver=raw,file.filename=data.img",
      "convert -c -O frob data.qcow2 x", "convert -c -O qcow2 nowhere x.qcow2",
      )

cases("convert/pace",
      "convert -r 1G data.qcow2 x.img", "convert -r 0 data.qcow2 x.img", "convert -r 100M -O qcow2 data.qcow2 x.qcow2",
      "convert -r frob data.qcow2 x.img", "convert -r -1 data.qcow2 x.img", "convert -r '' data.qcow2 x.img",
      "convert --salvage data.qcow2 x.img", "convert --salvage -q -O qcow2 raw.img x.qcow2", "convert --salvage -C raw.img x.img",
      "convert --salvage beyond.qcow2 x.img",
      )

cases("convert/offload",
      "convert -C raw.img x.img", "convert -C -O qcow2 raw.img x.qcow2", "convert -C data.qcow2 x.img", "convert -C overlay.qcow2 x.img", "convert -C zlib.qcow2 x.img",
      "convert -C odd.img raw.img x.img", "convert -C -W -m 4 raw.img x.img", "convert -C -n data.img raw.img", "convert -C hole.img x.img", "convert -C zero-length.img x.img",
      ("convert -C -p raw.img x.img", {"rules": ("progress",)}), "convert -C -t none -T none raw.img x.img", "convert -C nowhere x.img",
      )

cases("convert/snapshot",
      "convert -l snapshot.id=1,frob=2 snapshot.qcow2 x.img", "convert -l first raw.img x.img", "convert -l first snapshot.qcow2 data.qcow2 x.img",
      "convert -l first nowhere x.img", "convert -l snapshot.frob=1 snapshot.qcow2 x.img",
      "convert -l first snapshot.qcow2 x.img", "convert -l 1 -O qcow2 snapshot.qcow2 x.qcow2", "convert -l snapshot.name=first snapshot.qcow2 x.img",
      "convert -l snapshot.id=1,snapshot.name=first snapshot.qcow2 x.img", "convert -l snapshot.id=7 snapshot.qcow2 x.img",
      "convert -l frob snapshot.qcow2 x.img", "convert -l '' snapshot.qcow2 x.img", "convert -f qcow2 -l first data.qcow2 x.img",
      )

cases("convert/bitmaps",
      "convert --bitmaps -O qcow2 data.qcow2 x.qcow2", ("convert --bitmaps data.qcow2 x.img", NOTHING_LEFT), "convert --bitmaps -O qcow2 raw.img x.qcow2",
      "convert --bitmaps raw.img x.img", "convert --bitmaps --skip-broken-bitmaps -O qcow2 data.qcow2 x.qcow2",
      "convert --bitmaps -O qcow2 raw.img data.qcow2 x.qcow2", ("convert --bitmaps -O qcow2 -o compat=0.10 data.qcow2 x.qcow2", NOTHING_LEFT),
      )

# ---- rebase

NEWER = accept("rebase -c came after 7.2", "stdout", "stderr", "status", "files")
LOOP = accept("ours names the loop; QEMU runs into its own lock")

cases("rebase",
      "rebase -b other.qcow2 -F qcow2 overlay.qcow2", "rebase -b '' overlay.qcow2", "rebase -b base.qcow2 -F qcow2 top.qcow2",
      "rebase -b base.qcow2 -F qcow2 overlay.qcow2", "rebase -b '' top.qcow2", "rebase -b larger.qcow2 -F qcow2 overlay.qcow2",
      "rebase -b raw.img -F raw overlay.qcow2", "rebase -b hole.img -F raw overlay.qcow2", "rebase -b odd.img -F raw overlay.qcow2",
      "rebase -b zero-length.img -F raw overlay.qcow2", "rebase -b other.qcow2 -F qcow2 short.qcow2", "rebase -b '' short.qcow2",
      "rebase -b base.qcow2 -F qcow2 data.qcow2", "rebase -b '' data.qcow2", "rebase -b '' rawbacked.qcow2",
      "rebase -b tiny.qcow2 -F qcow2 overlay.qcow2", "rebase -b zlib.qcow2 -F qcow2 overlay.qcow2", "rebase -b '' sub/over.qcow2",
      ("rebase -b base.qcow2 -F qcow2 v2.qcow2", accept("7.2 loses the zeroes of a version 2 image: its content changes", "files")),
      "rebase -b ../base.qcow2 -F qcow2 sub/over.qcow2", "rebase -b file:base.qcow2 -F qcow2 overlay.qcow2",
      ("rebase -p -b other.qcow2 -F qcow2 overlay.qcow2", {"rules": ("progress",)}), "rebase -q -p -b '' overlay.qcow2",
      "rebase -t none -b other.qcow2 -F qcow2 overlay.qcow2", "rebase -T none -b other.qcow2 -F qcow2 overlay.qcow2",
      "rebase -t unsafe -T unsafe -b other.qcow2 -F qcow2 overlay.qcow2", "rebase -f qcow2 -b other.qcow2 -F qcow2 overlay.qcow2",
      "rebase --image-opts -b '' driver=qcow2,file.filename=overlay.qcow2", "rebase -U -b other.qcow2 -F qcow2 overlay.qcow2",
      ("rebase -c -b '' overlay.qcow2", NEWER),
      )

cases("rebase/unsafe",
      "rebase -u -b nowhere -F qcow2 overlay.qcow2", "rebase -u -b '' overlay.qcow2", "rebase -u overlay.qcow2", "rebase -u -b other.qcow2 -F raw overlay.qcow2",
      "rebase -u -b data.qcow2 -F qcow2 orphan.qcow2", "rebase -u -F qcow2 -b '' overlay.qcow2", "rebase -u -b '' orphan.qcow2",
      "rebase -u -b nowhere overlay.qcow2", "rebase -u -b nowhere -F frob overlay.qcow2", "rebase -u -b x -F qcow2 v2.qcow2",
      f"rebase -u -b {'a' * 1023} -F qcow2 overlay.qcow2", f"rebase -u -b {'a' * 1024} -F qcow2 overlay.qcow2",
      "rebase -u -b 'json:{\"driver\":\"qcow2\"}' -F qcow2 overlay.qcow2", "rebase -u -b x -F raw raw.img", "rebase -u -b x raw.img",
      "rebase -u -b base.qcow2 -F qcow2 tiny.qcow2", f"rebase -u -b {'b' * 400} -F qcow2 tiny.qcow2", "rebase -u -b overlay.qcow2 -F qcow2 loop.qcow2",
      "rebase -u -b base.qcow2 -F qcow2 -p overlay.qcow2",
      )

cases("rebase/bad",
      "rebase", "rebase overlay.qcow2", "rebase -F qcow2 overlay.qcow2", "rebase -b other.qcow2 overlay.qcow2 data.qcow2", "rebase -b other.qcow2",
      "rebase -b other.qcow2 overlay.qcow2", "rebase -b nowhere -F qcow2 overlay.qcow2", "rebase -b other.qcow2 -F frob overlay.qcow2",
      "rebase -b '' nowhere", "rebase -b '' orphan.qcow2", ("rebase -b '' loop.qcow2", LOOP), "rebase -t frob -b '' overlay.qcow2", "rebase -T frob -b '' overlay.qcow2",
      "rebase -f frob -b '' overlay.qcow2", "rebase -f qcow2 -b '' raw.img", "rebase --image-opts -f qcow2 -b '' overlay.qcow2", "rebase --frob overlay.qcow2",
      "rebase -b raw.img -F qcow2 overlay.qcow2", "rebase -b base.qcow2 -F qcow2 raw.img", "rebase -b '' raw.img", "rebase -b overlay.qcow2 -F qcow2 overlay.qcow2",
      "rebase -b truncated.qcow2 -F qcow2 overlay.qcow2",
      )
cases("rebase/locked", "rebase -b '' overlay.qcow2", "rebase -u -b '' overlay.qcow2", lock="overlay.qcow2")
cases("rebase/locked-backing", "rebase -b other.qcow2 -F qcow2 overlay.qcow2", "rebase -U -b other.qcow2 -F qcow2 overlay.qcow2", lock="other.qcow2")

# ---- commit

cases("commit",
      "commit overlay.qcow2", "commit -d overlay.qcow2", "commit -q overlay.qcow2", "commit top.qcow2", "commit -b base.qcow2 top.qcow2",
      "commit -b overlay.qcow2 top.qcow2", "commit -b base.qcow2 overlay.qcow2", "commit short.qcow2", "commit rawbacked.qcow2", "commit sub/over.qcow2",
      "commit -b ../base.qcow2 sub/over.qcow2", ("commit -p overlay.qcow2", {"rules": ("progress",)}), "commit -p -q overlay.qcow2",
      "commit -t none overlay.qcow2", "commit -t unsafe overlay.qcow2", "commit -t writethrough overlay.qcow2", "commit -f qcow2 overlay.qcow2",
      "commit -r 1G overlay.qcow2", "commit -r 0 overlay.qcow2", "commit --image-opts driver=qcow2,file.filename=overlay.qcow2",
      )

cases("commit/bad",
      "commit", "commit overlay.qcow2 top.qcow2", "commit nowhere", "commit data.qcow2", ("commit raw.img", accept("ours warns of a guessed raw format only where it then refuses to write")), "commit -f raw raw.img", "commit orphan.qcow2",
      "commit -b nowhere top.qcow2", "commit -b '' top.qcow2", "commit -b top.qcow2 top.qcow2", "commit -b data.qcow2 top.qcow2", "commit -t frob overlay.qcow2",
      "commit -r frob overlay.qcow2", "commit -f frob overlay.qcow2", "commit --image-opts -f qcow2 overlay.qcow2", "commit -U overlay.qcow2",
      "commit --frob overlay.qcow2", ("commit loop.qcow2", LOOP), "commit truncated.qcow2", "commit --object frob overlay.qcow2",
      )
cases("commit/locked", "commit overlay.qcow2", lock="overlay.qcow2")
cases("commit/locked-base", ("commit overlay.qcow2", accept("ours names the base that it could not open for writing")), lock="base.qcow2")
