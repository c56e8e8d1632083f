"""The part of the table that is about convert's rarer options, rebase and commit."""

from cases import accept, cases

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
