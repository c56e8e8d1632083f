"""Cases of images with subclusters and of images with data files: all that qemu-img and qemu-io do with them."""

from cases import accept, cases
from cases_img import ALL_AT_ONCE, CAREFUL, MOVED
from cases_shell import ZERO_ALREADY, scripts

IMAGES = ("sub.qcow2", "subzlib.qcow2", "subover.qcow2", "subprealloc.qcow2", "subsnap.qcow2")
DAMAGED = ("subboth.qcow2", "subnowhere.qcow2", "subcompressed.qcow2", "subuncopied.qcow2")

CORRUPTION = accept("our message says what is corrupt, where QEMU's says 'Input/output error'", "stdout", "stderr")

cases("subclusters/create",
      "create -f qcow2 -o extended_l2=on x.qcow2 64M", "create -f qcow2 -o extended_l2=on,cluster_size=16k x.qcow2 64M",
      "create -f qcow2 -o extended_l2=on,cluster_size=2M x.qcow2 1T", "create -f qcow2 -o extended_l2=on,cluster_size=8k x.qcow2 64M",
      "create -f qcow2 -o extended_l2=on,compat=0.10 x.qcow2 64M", "create -f qcow2 -o extended_l2=on,compat=v2,cluster_size=4k x.qcow2 64M",
      "create -f qcow2 -o extended_l2=maybe x.qcow2 64M", "create -f qcow2 -o extended_l2=off x.qcow2 64M",
      *[f"create -f qcow2 -o extended_l2=on,preallocation={mode} x.qcow2 4M" for mode in ("off", "metadata", "falloc", "full")],
      *[f"create -f qcow2 -o extended_l2=on,preallocation={mode} -b base.qcow2 -F qcow2 x.qcow2" for mode in ("metadata", "falloc", "full")],
      "create -f qcow2 -o extended_l2=on,preallocation=metadata -b base.qcow2 -F qcow2 x.qcow2 9M",
      "create -f qcow2 -o preallocation=metadata -b base.qcow2 -F qcow2 x.qcow2",
      "create -f qcow2 -b subover.qcow2 -F qcow2 -o extended_l2=on x.qcow2", "create -f qcow2 -o extended_l2=on x.qcow2 0",
      "create -f qcow2 -o extended_l2=on,cluster_size=16k x.qcow2 9P",
      )
cases("subclusters/look",
      *[f"{command} {name}" for name in (*IMAGES, *DAMAGED) for command in ("info", "check", "check --output=json")],
      *[f"map {option}{name}" for name in IMAGES for option in ("", "--output=json ")],
      "map -s 70k -l 100k --output=json sub.qcow2", "snapshot -l subsnap.qcow2",
      "compare sub.qcow2 subsnap.qcow2", "compare -s sub.qcow2 sub.qcow2", "compare subover.qcow2 base.qcow2",
      *[(f"map --output=json {name}", CORRUPTION) for name in ("subboth.qcow2", "subnowhere.qcow2")],
      *[f"measure -O qcow2 {option}{name}" for name in IMAGES for option in ("", "-o extended_l2=on ")],
      "measure -O qcow2 -o extended_l2=on,cluster_size=16k --size 1T", "measure -O qcow2 -o extended_l2=on,cluster_size=8k --size 1G",
      "measure -O qcow2 -o extended_l2=on,preallocation=full --size 1G", "measure -O raw sub.qcow2",
      )
BITMAPS_STAY = accept("a repair writes new tables; QEMU cannot compare images with a bitmap that is corrupt, before and after", "stdout", "files")
cases("subclusters/repair",
      "check -r leaks subboth.qcow2", "check -r leaks subnowhere.qcow2", ("check -r all subboth.qcow2", BITMAPS_STAY),
      ("check -r all subnowhere.qcow2", BITMAPS_STAY), ("check -r leaks subcompressed.qcow2", CAREFUL), ("check -r all subcompressed.qcow2", MOVED),
      ("check -r leaks subuncopied.qcow2", CAREFUL), ("check -r all subuncopied.qcow2", ALL_AT_ONCE))
cases("subclusters/copy",
      *[f"convert -O {form} {name} x.out" for name in IMAGES for form in ("raw", "qcow2", "qcow2 -o extended_l2=on")],
      *[f"convert -c -O qcow2 -o extended_l2=on{more} {name} x.out" for name in ("sub.qcow2", "subover.qcow2") for more in ("", ",compression_type=zstd")],
      "convert -O qcow2 -o extended_l2=on,cluster_size=1M data.qcow2 x.qcow2", "convert -O qcow2 -o extended_l2=on,preallocation=metadata data.qcow2 x.qcow2",
      "convert -O qcow2 -B base.qcow2 -F qcow2 -o extended_l2=on subover.qcow2 x.qcow2", "convert -l one -O raw subsnap.qcow2 x.raw",
      "convert -n -O qcow2 data.qcow2 subprealloc.qcow2", "convert -S 0 -O qcow2 -o extended_l2=on sub.qcow2 x.qcow2",
      "dd if=sub.qcow2 of=x.raw bs=3k count=40 skip=20",
      ("convert -O raw subboth.qcow2 x.raw", accept("our message says what is corrupt; QEMU leaves a half-made target behind", "stderr", "files")),
      )
cases("subclusters/change",
      "commit subover.qcow2", "commit -d subover.qcow2", "rebase -b '' subover.qcow2", "rebase -b data.qcow2 -F qcow2 subover.qcow2",
      "rebase -u -b data.qcow2 -F qcow2 subover.qcow2", "commit subprealloc.qcow2",
      "resize sub.qcow2 9M", "resize sub.qcow2 +513", "resize --shrink sub.qcow2 1100k", "resize --shrink sub.qcow2 72k", "resize subover.qcow2 +10M",
      *[f"resize --preallocation={mode} sub.qcow2 6M" for mode in ("metadata", "falloc", "full")],
      *[f"resize --preallocation={mode} subover.qcow2 9M" for mode in ("metadata", "falloc")],
      "snapshot -c two sub.qcow2", "snapshot -a one subsnap.qcow2", "snapshot -d one subsnap.qcow2", "snapshot -c two subsnap.qcow2",
      "amend -o compat=0.10 sub.qcow2", "amend -o lazy_refcounts=on sub.qcow2", "amend -o refcount_bits=64 subsnap.qcow2", "amend -o size=8M sub.qcow2",
      rules=("date", "icount"))

for image in IMAGES:
    scripts(f"subclusters/shell-{image.split('.')[0]}", f"-f qcow2 {image}",
            "read -P 1 0 8k ; read -P 0 8k 4k ; read -v 70k 600 ; map ; alloc 0 1M",
            "write -P 0xa1 66k 1k ; write -P 0xa2 68k 3k ; read -v 66k 2k ; map",
            "write -P 0xa3 1000k 300k ; write -P 0xa4 129k 700 ; read -v 129k 1k ; map",
            "write -z 70k 20k ; map", "write -z -u 70k 20k ; map", "write -z 130k 2k ; map", "write -z -u 64k 64k ; map",
            "discard 0 64k ; map", "discard 5k 300k ; map", "discard 0 4M ; map", "write -c -P 7 2M 128k ; map",
            "write -c -P 7 64k 64k ; read -P 7 64k 64k", "aio_write -P 8 3k 100k ; aio_flush ; aio_write -P 9 200k 2k ; aio_flush ; map",
            "truncate 5M ; write -P 3 4200k 10k ; map", "writev -P 4 9k 3k 5k ; read -P 4 9k 8k", rules=("prompts",))
scripts("subclusters/zero", "-f qcow2 sub.qcow2", ("write -z 5k 200k ; map", ZERO_ALREADY), ("write -z -u 5k 200k ; map", ZERO_ALREADY),
        ("write -z -u 0 4M ; map", ZERO_ALREADY))

# ---- Data files

EXTERNAL = ("ext.qcow2", "extraw.qcow2", "extover.qcow2", "extsub.qcow2")
LOST = ("extlost.qcow2", "extunnamed.qcow2", "extnbd.qcow2", "extjson.qcow2", "extself.qcow2")

SAME_FILE = accept("QEMU overwrites the image with its data file, and says so in other words", "stderr")
COMPRESSED = accept("refused before anything is made, as for every target without compression", "stdout", "stderr", "files")
AS_PATH = accept("a name with a colon is shown as the path that it is taken for")
NO_SNAPSHOTS = accept("a snapshot that is not there is the reason, before what the image cannot hold")
ELSEWHERE = accept("a data cluster that is not at its guest offset is damage: QEMU finds it when reading", "stdout", "stderr", "status", "files")

cases("datafile/create",
      "create -f qcow2 -o data_file=x.raw x.qcow2 4M", "create -f qcow2 -o data_file=x.raw,data_file_raw=on x.qcow2 4M",
      "create -f qcow2 -o data_file=x.raw x.qcow2 0", "create -f qcow2 -o data_file=x.raw,cluster_size=512 x.qcow2 1000k",
      *[f"create -f qcow2 -o data_file=x.raw,preallocation={mode}{more} x.qcow2 4M" for mode in ("metadata", "falloc", "full")
        for more in ("", ",extended_l2=on", ",data_file_raw=on")],
      "create -f qcow2 -o data_file=x.raw,data_file_raw=on,extended_l2=on x.qcow2 4M",
      "create -f qcow2 -o data_file=x.raw -b base.qcow2 -F qcow2 x.qcow2", "create -f qcow2 -o data_file=x.raw,data_file_raw=on -b base.qcow2 -F qcow2 x.qcow2",
      "create -f qcow2 -o data_file_raw=on x.qcow2 1M", "create -f qcow2 -o data_file=x.raw,compat=0.10 x.qcow2 1M", "create -f qcow2 -o data_file= x.qcow2 1M",
      "create -f qcow2 -o data_file=/nonexistent/x x.qcow2 1M", ("create -f qcow2 -o data_file=x.qcow2 x.qcow2 1M", SAME_FILE),
      "create -f qcow2 -o data_file=x.raw /nonexistent/x.qcow2 1M", "create -f qcow2 -o data_file=sub/x.raw sub/x.qcow2 1M",
      "create -f qcow2 -o data_file=raw.img x.qcow2 1M",
      )
cases("datafile/look",
      *[f"{command} {name}" for name in EXTERNAL for command in ("info", "info --output=json", "check", "check --output=json", "map", "map --output=json",
                                                                "measure -O qcow2", "snapshot -l")],
      *[f"info {name}" for name in LOST],
      "check extshort.qcow2", "map --output=json extshort.qcow2",
      "check extlost.qcow2", "check extunnamed.qcow2", ("check extnbd.qcow2", AS_PATH), ("check extjson.qcow2", AS_PATH), "check extself.qcow2",
      "compare ext.qcow2 extraw.qcow2", "compare ext.qcow2 ext.raw", "compare -f qcow2 -F raw extraw.qcow2 extraw.raw",
      "check extcompressed.qcow2", ("check extelsewhere.qcow2", ELSEWHERE), "check extuncopied.qcow2",
      ("map extelsewhere.qcow2", CORRUPTION), ("map extcompressed.qcow2", CORRUPTION),
      "measure -O qcow2 -o data_file=x.raw --size 1G", "measure -O qcow2 -o data_file=x.raw,data_file_raw=on --size 1G", 
      ("measure -O qcow2 -o data_file_raw=on --size 1G", accept("7.2 measures an image that it would refuse to create", "stdout", "stderr", "status")),
      "info --image-opts driver=qcow2,file.filename=extunnamed.qcow2,data-file.driver=file,data-file.filename=ext.raw",
      ("check --image-opts driver=qcow2,file.filename=extunnamed.qcow2,data-file.driver=file,data-file.filename=ext.raw", {"needs": ("ext.raw",)}),
      ("map --image-opts driver=qcow2,file.filename=extunnamed.qcow2,data-file.driver=file,data-file.filename=ext.raw", {"needs": ("ext.raw",)}),
      "check --image-opts driver=qcow2,file.filename=data.qcow2,data-file.driver=file,data-file.filename=raw.img",
      "info --image-opts driver=qcow2,file.filename=data.qcow2,data-file.driver=file,data-file.filename=raw.img",
      )
cases("datafile/copy",
      *[f"convert -O {form} {name} x.out" for name in (*EXTERNAL, "extshort.qcow2") for form in ("raw", "qcow2")],
      *[f"convert -O qcow2 -o {options} {name} x.qcow2" for name in ("data.qcow2", "ext.qcow2", "sub.qcow2")
        for options in ("data_file=x.raw", "data_file=x.raw,data_file_raw=on", "data_file=x.raw,extended_l2=on")],
      ("convert -c -O qcow2 -o data_file=x.raw data.qcow2 x.qcow2", COMPRESSED), "convert -O raw extlost.qcow2 x.raw",
      ("convert -n -O qcow2 data.qcow2 ext.qcow2", accept("where the mapping says zero, what was in the data file is left there", "files")), "dd if=ext.qcow2 of=x.raw bs=3k count=40 skip=20", "convert -B base.qcow2 -F qcow2 -O qcow2 -o data_file=x.raw extover.qcow2 x.qcow2",
      )
cases("datafile/change",
      "commit extover.qcow2", "commit -d extover.qcow2", "rebase -b '' extover.qcow2", "rebase -b data.qcow2 -F qcow2 extover.qcow2", "rebase -u -b '' extover.qcow2",
      *[f"resize {name} {size}" for name in ("ext.qcow2", "extraw.qcow2", "extsub.qcow2") for size in ("9M", "+513")],
      *[f"resize --shrink {name} {size}" for name in ("ext.qcow2", "extraw.qcow2", "extsub.qcow2") for size in ("1100k", "132k", "512")],
      *[f"resize --preallocation={mode} {name} 6M" for mode in ("metadata", "falloc", "full") for name in ("ext.qcow2", "extraw.qcow2", "extsub.qcow2")],
      "snapshot -c one ext.qcow2", ("snapshot -a one ext.qcow2", NO_SNAPSHOTS), "snapshot -d one ext.qcow2",
      "amend -o data_file=elsewhere.raw ext.qcow2", "amend -o data_file= ext.qcow2", "amend -o data_file_raw=on ext.qcow2", "amend -o data_file_raw=off ext.qcow2",
      "amend -o data_file_raw=off extraw.qcow2", "amend -o data_file_raw=on extraw.qcow2", "amend -o compat=0.10 ext.qcow2", "amend -o data_file=x.raw data.qcow2",
      "amend -o data_file_raw=off data.qcow2", "amend -o refcount_bits=64 ext.qcow2", "amend -o size=9M ext.qcow2",
      "check -r all ext.qcow2", "check -r leaks ext.qcow2", ("check -r all extuncopied.qcow2", ALL_AT_ONCE), ("check -r all extcompressed.qcow2", MOVED),
      rules=("date", "icount"))

for image in EXTERNAL:
    scripts(f"datafile/shell-{image.split('.')[0]}", f"-f qcow2 {image}",
            "read -P 1 4k 8k ; read -v 130k 600 ; map ; alloc 0 1M", "write -P 0xa1 66k 1k ; write -P 0xa2 68k 3k ; read -v 66k 2k ; map",
            "write -P 0xa3 1000k 300k ; write -P 0xa4 257k 700 ; read -v 257k 1k ; map", "write -z 1M 64k ; map", "write -z -u 1M 64k ; map",
            "write -z 1030k 1k ; map", "discard 0 64k ; map", "discard 1M 300k ; map", "write -c -P 7 2M 64k", "aio_write -P 8 3k 100k ; aio_flush ; map",
            "truncate 5M ; write -P 3 4200k 10k ; map", "flush ; read -P 0 300k 1k", rules=("prompts",))
scripts("datafile/short", "-f qcow2 extshort.qcow2", "read -P 3 1M 4k", "read -P 0 1M 4k", "write -P 5 1M 4k ; read -P 5 1M 4k ; map")
