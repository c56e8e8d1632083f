"""The state of a virtual machine, beside the disk: read -b and write -b."""

from cases import accept
from cases_shell import scripts

WRAPPED = accept("QEMU's number of the L1 entry has lost its high bits", "stdout", "status", "files")
DISK_ALONE = accept("a data file holds the disk alone; QEMU puts the state into it, behind the disk", "stdout", "status", "files")

for image in ("data.qcow2", "tiny.qcow2", "overlay.qcow2", "snapshots.qcow2", "raw.img"):
    fmt = "raw" if image.endswith(".img") else "qcow2"
    scripts(f"vm state/{image.split('.')[0]}", f"-f {fmt} {image}",
            "write -b -P 5 0 64k ; read -b -P 5 0 64k ; read -b -P 0 64k 512 ; map ; length ; info",
            "write -b -P 5 512 1k ; write -b -P 6 100k 300k ; read -b -P 0 0 512 ; read -b -P 5 512 1k ; read -b -P 6 100k 300k ; read -P 5 0 64k",
            "read -b -P 0 0 64k", "write -b 0 0", "read -b 0 0", "write -b -P 3 600M 64k ; read -b -P 3 600M 64k", "write -b 1T 64k ; read -b -v 1T 512",
            ("write -b 1E 64k", WRAPPED if image == "tiny.qcow2" else {}), "read -b 0 2G", "write -b 100 1k", "read -b 0 100", "read -b -v 0 512")
scripts("vm state/reading", "-r -f qcow2 data.qcow2", "write -b 0 512", "read -b -P 0 0 512")
scripts("vm state/overlay of an overlay", "-f qcow2 top.qcow2", "write -b -P 5 0 300k ; read -b -P 5 0 300k", "write -b 100G 512", "truncate 8M ; write -b -P 7 0 64k ; read -b -P 7 0 64k")
scripts("vm state/data file", "-f qcow2 ext.qcow2", ("write -b 0 64k", DISK_ALONE), ("read -b 0 64k", DISK_ALONE))
