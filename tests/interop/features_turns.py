"""What happens to an image: one program makes it, the other changes it, and the first one goes on with that."""

from features_image import SECTOR
from features_verify import verify

KINDS = ["data", "data", "unaligned", "zero", "zero and unmap", "unaligned zero", "discard"]


def play(image, maker, other):
    row = image.row
    for number, (turn, program, reader) in enumerate(((make, maker, other), (change, other, maker), (go_on, maker, other))):
        image.turn = f"{turn.__name__} by {program.name}"
        turn(image, program)
        if number == 0 and row.lazy and row.bitmaps == "none":
            image.turn = f"ended by a kill, opened by {reader.name}"
            image.write(program, ["data", "zero"], killed=True)
            image.write(reader, ["data"])
        image.turn += f", then verify with {reader.name}"
        verify(image, reader, (program, reader))


def some(image):
    kinds = KINDS + ["compressed"] * (3 if image.row.compression else 0)
    image.random.shuffle(kinds)
    return kinds


def make(image, program):
    row = image.row
    image.create(program)
    if row.bitmaps != "none":
        image.bitmap(program, "first", "--add")
        image.bitmap(program, "fine", "--add", "-g", "512")
    image.write(program, some(image))
    if row.snapshots != "none":
        image.snapshot(program, "-c", "first")
        image.write(program, some(image))
    if row.snapshots == "several":
        image.snapshot(program, "-c", "second")
        image.write(program, some(image))
        image.snapshot(program, "-d", "first")
        image.snapshot(program, "-c", "third")
    if row.bitmaps == "disabled and merged":
        image.bitmap(program, "merged", "--add", "--disable", "--merge", "first", "--merge", "fine")
        image.bitmap(program, "fine", "--disable")
        image.write(program, some(image))


def change(image, program):
    row = image.row
    image.write(program, some(image))
    if row.bitmaps == "enabled":
        image.bitmap(program, "first", "--clear")
        image.bitmap(program, "coarse", "--add", "-g", str(1 << 20), "--merge", "fine")
    elif row.bitmaps == "disabled and merged":
        image.bitmap(program, "fine", "--enable", "--merge", "merged")
    if row.snapshots == "one":
        image.snapshot(program, "-a", "first")
        image.write(program, some(image))
    elif row.snapshots == "several":
        image.snapshot(program, "-a", "third")
        image.write(program, some(image))
        image.snapshot(program, "-d", "second")
        image.snapshot(program, "-c", "fourth")
    amend(image, program)
    if not fixed_size(image):
        growth = image.random.randrange(1, 3 * row.cluster // SECTOR) * SECTOR
        image.resize(program, image.size + growth, preallocation(row, program))
    image.write(program, some(image))


def preallocation(row, program):
    """QEMU 7.2 shows what freed clusters held where it takes them for the new end ("write -c -P 1 64k 64k", "write -P 2
    64k 64k", grown by 4k with preallocation=metadata), and falloc fails where the file ends with free clusters."""
    if row.backing or row.encryption or program.name == "qemu" and not row.data_file:
        return "off"
    return row.preallocation


def fixed_size(image):
    return image.specific["compat"] == "0.10" and image.snapshots


def amend(image, program):
    row = image.row
    if row.encryption == "luks":
        image.amend(program, "encrypt.state=active,encrypt.new-secret=new,encrypt.iter-time=10")
        image.open_with("new")
    elif row.compat == "0.10":
        image.amend(program, "compat=1.1", compat="1.1", lazy_refcounts=False, extended_l2=False)
    elif row.bits >= 8 and (program.name == "platter" or row.cluster <= 16 << 10):  # QEMU takes minutes for 2 MiB
        bits = row.bits * 2 if row.bits < 64 else 16
        image.amend(program, f"refcount_bits={bits}", refcount_bits=bits)
    else:
        image.amend(program, f"lazy_refcounts={'off' if row.lazy else 'on'}", lazy_refcounts=not row.lazy)


def go_on(image, program):
    row = image.row
    image.write(program, some(image))
    for name in sorted(image.snapshots)[:1]:
        image.snapshot(program, "-a", name)
        image.write(program, some(image))
    if not fixed_size(image):
        image.resize(program, image.size - image.random.randrange(1, 3 * row.cluster // SECTOR) * SECTOR)
    image.write(program, some(image))
    for name in sorted(image.snapshots)[:1]:
        image.snapshot(program, "-d", name)
    for name in sorted(image.bitmaps)[:1]:
        image.bitmap(program, name, "--clear", "--disable")
    # QEMU 7.2 writes zeroes as they are where version 2 needs zeroes that are encrypted, and they read as noise.
    expands = program.name == "platter" or not row.encryption
    if row.compat == "0.10" and image.specific["compat"] == "1.1" and not image.snapshots and expands:
        image.amend(program, "compat=0.10", compat="0.10", lazy_refcounts=None, extended_l2=None)
    image.write(program, some(image))
