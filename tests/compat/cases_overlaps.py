"""Writes that would destroy metadata: what qemu-io does with them, and which options let them pass."""

from cases import accept
from cases_shell import scripts

NAMES = ["l1", "l2", "reftable", "refblock", "snapshots", "inactivel1", "directory"]
FREE = ["l2", "refblock", "inactivel1"]
OWN_WORDS = accept("our message names the image; closing it says that writes were refused", "stderr")
STILL_OPEN = accept("the image stays open, and can be read", "stdout", "stderr")
LOST_BITMAP = accept("a bitmap that cannot be stored makes the exit status 1; QEMU only says so", "stderr", "status")
EARLIER = accept("QEMU writes the data and fails later, when it writes the table that lies where another one is", "stdout", "stderr", "status", "files")


def opened(name, *options):
    return [f"open -o {option} over{name}.qcow2 ; write 0 64k" for option in options]


for name in NAMES:
    scripts(f"overlaps/{name}", f"-f qcow2 over{name}.qcow2", "read 0 4k ; write -z 0 64k ; read 0 4k", "write 64k 64k", "write -c 1M 64k")
    scripts(f"overlaps/{name}/refused", f"-f qcow2 over{name}.qcow2",
            "write 0 64k", "write 100 2k", ("write 0 64k ; write 1M 64k ; read 1M 64k", STILL_OPEN), **OWN_WORDS)
    scripts(f"overlaps/{name}/refused with options", "", *opened(name, "overlap-check=cached", "overlap-check=all"), **OWN_WORDS)

# Where it passes, of those whose images QEMU can still compare afterwards.
scripts("overlaps/passes", "", *opened("reftable", "overlap-check=none"), *opened("refblock", "overlap-check=none", "overlap-check=constant"),
        *opened("inactivel1", "overlap-check=none", "overlap-check=constant", "overlap-check.inactive-l1=off"),
        *opened("reftable", "overlap-check.template=none,overlap-check.active-l1=on,overlap-check.refcount-block=on"))
scripts("overlaps/refused by one option", "",
        *opened("l1", "overlap-check.template=none,overlap-check.active-l1=on", "overlap-check=constant"),
        *opened("refblock", "overlap-check.template=none,overlap-check.refcount-block=on"), **OWN_WORDS)
for name in FREE:
    scripts(f"overlaps/free-{name}", f"-f qcow2 overfree{name}.qcow2", "write 2M 64k", **OWN_WORDS)
for name in ("refblock", "inactivel1"):
    scripts(f"overlaps/free-{name}/bitmap", f"-f qcow2 overfree{name}.qcow2", ("write 0 64k", LOST_BITMAP))
scripts("overlaps/inactivel2", "-f qcow2 overinactivel2.qcow2", "write 0 64k", "read 0 64k")
scripts("overlaps/inactivel2/options", "", *opened("inactivel2", "overlap-check=none", "overlap-check=cached"))
scripts("overlaps/inactivel2/looked-after", "", *opened("inactivel2", "overlap-check=all", "overlap-check.inactive-l2=on"), **OWN_WORDS)
scripts("overlaps/none", "-f qcow2 overnone.qcow2", "write 0 64k ; write 1M 64k ; read 0 64k", "write -z 0 4M", "discard 0 4M ; write 0 4M")
scripts("overlaps/table", "-f qcow2 overtable.qcow2", ("write 0 64k", EARLIER), ("write 1M 64k", EARLIER))
