"""Cases of dirty bitmaps: made, changed, merged, copied, measured, and in the way of other commands."""

from cases import accept, cases

NODE = {"rules": ("node",)}
NODE_NAME = accept("names of unnamed nodes are our own")
EMPTY_LIST = accept("an empty list is written as []", "stdout")
WARNING = accept("warnings of the library begin with WARNING:, and each is one line")
NOTHING_LEFT = accept("QEMU leaves a half-made target behind", "files")
DOWNGRADE = accept("QEMU drops the bitmaps without a word and leaks their clusters: refused", "stderr", "status", "files")
TOO_LARGE = accept("QEMU counts the granularity in 32 bits and takes what is left of it")

cases("bitmap",
      "bitmap", "bitmap data.qcow2", "bitmap data.qcow2 b", "bitmap --add data.qcow2", "bitmap --add data.qcow2 b c", "bitmap --frob data.qcow2 b", "bitmap --merge", "bitmap -g",
      "bitmap --add -g x data.qcow2 b", "bitmap -g 64k --remove data.qcow2 b", "bitmap -b base.qcow2 --add data.qcow2 b", "bitmap -F qcow2 --add data.qcow2 b",
      "bitmap -F qcow2 --merge s data.qcow2 b", "bitmap --add -f frob data.qcow2 b", "bitmap --add nowhere b", "bitmap --add --image-opts -f qcow2 data.qcow2 b",
      "bitmap --add --object frob data.qcow2 b", "bitmap --add data.qcow2 ''", "bitmap --merge s -b nowhere data.qcow2 b",
      *[f"bitmap --{action} {image} b" for action in ("remove", "clear", "enable", "disable", "merge s") for image in ("data.qcow2", "-f raw raw.img")],
      "bitmap --merge s -b base.qcow2 data.qcow2 b", "bitmap --merge s -b base.qcow2 -F qcow2 -f raw raw.img b",
      ("bitmap --add -f raw raw.img b", NODE), ("bitmap --add raw.img b", NODE), ("bitmap --add v2.qcow2 b", NODE_NAME),
      )

# Every granularity there is, on images of several cluster sizes.
cases("bitmap/add",
      *[f"bitmap --add -g {size} data.qcow2 b" for size in ("512", "1k", "4k", "64k", "1M", "1G", "2G", "0")],
      *[f"bitmap --add {name} b" for name in ("data.qcow2", "tiny.qcow2", "big.qcow2", "bits64.qcow2", "lazy.qcow2", "meta.qcow2", "overlay.qcow2", "snapshots.qcow2", "zlib.qcow2", "bitmap.qcow2")],
      "bitmap --add -g 512 tiny.qcow2 b", "bitmap --add -g 512 big.qcow2 b", "bitmap --add --disable data.qcow2 b", "bitmap --disable --add data.qcow2 b",
      "bitmap --add --enable data.qcow2 b", "bitmap --add --clear --disable --enable --remove data.qcow2 b", "bitmap --add --add data.qcow2 b", "bitmap --add --merge b data.qcow2 b",
      "bitmap --add -g 3 data.qcow2 b", "bitmap --add -g 256 data.qcow2 b", "bitmap --add -g 1536 data.qcow2 b", ("bitmap --add -g 4G data.qcow2 b", TOO_LARGE),
      "bitmap --add data.qcow2 " + "n" * 1023, ("bitmap --add data.qcow2 " + "n" * 1024, NODE), "bitmap --add data.qcow2 'a b,c=d'",
      "bitmap --add -f qcow2 data.qcow2 b", "bitmap --add --image-opts driver=qcow2,file.filename=data.qcow2 b", "bitmap --add corruptbit.qcow2 b",
      ("bitmap --add -g 512 huge.qcow2 b", NODE), ("bitmap --add huge.qcow2 b", NODE), "bitmap --add -g 2M huge.qcow2 b",
      )

cases("bitmap/change",
      *[f"bitmap --{action} {name}" for name in ("bitmap.qcow2 fine", "bitmap.qcow2 coarse", "bitmaps.qcow2 b0", "bitmaps.qcow2 off", "bitmaps.qcow2 fine")
        for action in ("remove", "clear", "enable", "disable", "add", "merge coarse", "merge b0", "merge nope")],
      "bitmap --remove bitmaps.qcow2 nope", "bitmap --clear bitmaps.qcow2 nope", "bitmap --enable bitmaps.qcow2 nope", "bitmap --disable bitmaps.qcow2 nope", "bitmap --merge b0 bitmaps.qcow2 nope",
      "bitmap --clear --merge fine --disable bitmaps.qcow2 b0", "bitmap --remove --add bitmaps.qcow2 b0", "bitmap --clear --frob bitmaps.qcow2 b0",
      "bitmap --clear --merge nope bitmaps.qcow2 b0", "bitmap --merge fine --merge off bitmaps.qcow2 b0",
      )

cases("bitmap/merge",
      *[f"bitmap --merge {source} -b bitmaps.qcow2 {target}" for source in ("b0", "fine", "off", "nope") for target in ("other-bitmaps.qcow2 o", "bitmap.qcow2 fine", "data.qcow2 b", "v2.qcow2 b")],
      "bitmap --merge b0 -b bitmaps.qcow2 -F qcow2 other-bitmaps.qcow2 o", "bitmap --merge b0 -b bitmaps.qcow2 -F raw other-bitmaps.qcow2 o",
      "bitmap --merge b0 -b raw.img other-bitmaps.qcow2 o", "bitmap --merge b0 -b bitmaps.qcow2 bitmaps.qcow2 off", "bitmap --add --merge fine -b bitmaps.qcow2 -g 1M data.qcow2 b",
      "bitmap --merge b0 -b broken-bitmaps.qcow2 other-bitmaps.qcow2 o",
      )

# b0 of this one was not stored, and neither was off: a writer was killed.
cases("bitmap/inconsistent",
      *[f"bitmap --{action} broken-bitmaps.qcow2 {name}" for name in ("b0", "off") for action in ("remove", "clear", "enable", "disable", "add", "merge fine")],
      *[f"{command} broken-bitmaps.qcow2" for command in ("info", "info --output=json", "check", "check -r all", "check -r leaks", "measure -O qcow2", "map", "snapshot -c s", "amend -o lazy_refcounts=on")],
      "resize broken-bitmaps.qcow2 8M", "resize --shrink broken-bitmaps.qcow2 2M", "bitmap --add broken-bitmaps.qcow2 new",
      "convert --bitmaps -O qcow2 broken-bitmaps.qcow2 x.qcow2", "convert --bitmaps --skip-broken-bitmaps -O qcow2 broken-bitmaps.qcow2 x.qcow2", "convert -O qcow2 broken-bitmaps.qcow2 x.qcow2",
      rules=("date", "icount"))

cases("bitmap/elsewhere",
      *[f"{command} {name}" for name in ("bitmaps.qcow2", "other-bitmaps.qcow2")
        for command in ("info", "check", "check --output=json", "measure -O qcow2", "measure -O qcow2 -o cluster_size=4k", "measure -O qcow2 -o compat=0.10", "map --output=json",
                        "snapshot -c s", "amend -o lazy_refcounts=on", "amend -o refcount_bits=64", "amend -o size=8M", "rebase -u -b ''", "rebase -b ''")],
      ("info --output=json bitmaps.qcow2", EMPTY_LIST), "info --output=json other-bitmaps.qcow2",
      "resize bitmaps.qcow2 8M", "resize bitmaps.qcow2 4259840", "resize bitmaps.qcow2 1T", "resize --shrink bitmaps.qcow2 1M", "resize --shrink bitmaps.qcow2 512", "resize bitmaps.qcow2 4M",
      "snapshot -a s snapped-bitmaps.qcow2", "snapshot -d s snapped-bitmaps.qcow2", ("amend -o compat=0.10 bitmaps.qcow2", DOWNGRADE), "amend -o compat=1.1 bitmaps.qcow2",
      "commit bitmaps-top.qcow2", "commit -d bitmaps-top.qcow2", "rebase -b base.qcow2 -F qcow2 bitmaps-top.qcow2", "rebase -u -b base.qcow2 -F qcow2 bitmaps-top.qcow2", "rebase -b '' bitmaps-top.qcow2",
      *[(command, WARNING) for command in ("info stale-bitmaps.qcow2", "check stale-bitmaps.qcow2", "convert --bitmaps -O qcow2 stale-bitmaps.qcow2 x.qcow2", "bitmap --add stale-bitmaps.qcow2 b")],
      rules=("date", "icount"))

cases("bitmap/convert",
      *[f"convert --bitmaps {options} {name} x.qcow2" for name in ("bitmaps.qcow2", "other-bitmaps.qcow2", "bitmaps-top.qcow2", "snapped-bitmaps.qcow2")
        for options in ("-O qcow2", "-c -O qcow2", "-O qcow2 -o cluster_size=512", "-O qcow2 -o cluster_size=2M,lazy_refcounts=on")],
      "convert --bitmaps -B base.qcow2 -F qcow2 -O qcow2 bitmaps-top.qcow2 x.qcow2", "convert --bitmaps -l s -O qcow2 snapped-bitmaps.qcow2 x.qcow2", "convert --bitmaps -O qcow2 bitmap.qcow2 x.qcow2",
      "convert -n --bitmaps -O qcow2 bitmaps.qcow2 bitmap.qcow2", "convert -n --bitmaps -O qcow2 bitmaps.qcow2 other-bitmaps.qcow2", "convert -n --bitmaps -O qcow2 bitmaps.qcow2 larger.qcow2",
      "convert -n --bitmaps -O qcow2 bitmaps.qcow2 bitmaps.qcow2", ("convert --bitmaps -O raw bitmaps.qcow2 x.img", NOTHING_LEFT), ("convert --bitmaps -O raw bitmaps.qcow2 data.qcow2", NOTHING_LEFT),
      ("convert --bitmaps -O qcow2 -o compat=0.10 bitmaps.qcow2 x.img", NOTHING_LEFT), "convert --image-opts --bitmaps -O qcow2 driver=qcow2,file.filename=bitmaps.qcow2 x.qcow2",
      "convert --bitmaps -O qcow2 bitmaps.qcow2 other-bitmaps.qcow2 x.qcow2",
      )

cases("bitmap/locked", "bitmap --add data.qcow2 b", lock="data.qcow2")
cases("bitmap/source-locked", "bitmap --merge b0 -b bitmaps.qcow2 other-bitmaps.qcow2 o", lock="bitmaps.qcow2")
