"""cache-clean-interval: what is a number of seconds, and that an image goes on being read and written across the turns."""

from cases import accept, cases
from cases_shell import scripts

NO_NUMBER = accept("ours takes a negative number in JSON for none, as elsewhere; QEMU for one that is too large")
IMAGE = "driver=qcow2,file.filename=data.qcow2,cache-clean-interval="
JSON = '{"driver":"qcow2","cache-clean-interval":%s,"file":{"driver":"file","filename":"data.qcow2"}}'

cases("cache cleaning/option",
      *[f"check --image-opts {IMAGE}{value}" for value in (0, 1, 4294967295, 4294967296, 18446744073709551615, 18446744073709551616, -1, "x", "10s", "1k", "", 1.5)],
      *[f"check 'json:{JSON % value}'" for value in (0, 10, '"10"', 4294967296, 1.5, "true")], (f"check 'json:{JSON % -1}'", NO_NUMBER),
      f"check --image-opts {IMAGE}1,cache-clean-interval=2", "check --image-opts driver=raw,file.filename=raw.img,cache-clean-interval=1",
      f"convert --image-opts {IMAGE}1 x.img")

_USE = "write -P 9 0 64k ; write -P 8 2M 64k ; flush ; sleep 2300 ; read -P 9 0 64k ; read -P 8 2M 64k ; write -P 7 0 4k ; sleep 1100 ; read -P 7 0 4k ; map"
scripts("cache cleaning/use", f"--image-opts {IMAGE}1", _USE)
scripts("cache cleaning/reopen", "-f qcow2 data.qcow2",
        *[f"write -P 9 0 64k ; reopen -o cache-clean-interval={value} ; read -P 9 0 64k ; map" for value in (0, 1, 4294967295, 4294967296, "x")],
        "reopen -o cache-clean-interval=1 ; write -P 9 0 64k ; sleep 1100 ; reopen ; read -P 9 0 64k", f"reopen -o cache-clean-interval=1 ; {_USE}")
