"""What must hold of an image after each turn: both programs agree on it, and it has what the model has."""

import json
import pathlib

from features_image import KIB, bitmap_bits
from images import Failure


def verify(image, reader, both):
    for program in both:
        image.img(program, "check", text="No errors were found")
    same(both, [where(said(image, program, "map", *image.keys, "--image-opts", image.options)) for program in both])
    verify_info(image, same(both, [said(image, program, "info", "-f", "qcow2", "image") for program in both]))
    verify_content(image, reader, "the disk", image.content)
    for name, content in image.snapshots.items():
        # Of a snapshot of another size QEMU shows as much as the disk has now.
        size = len(content) if reader.name == "platter" else min(len(content), image.size)
        verify_content(image, reader, f"snapshot {name}", content[:size], "-l", f"snapshot.name={name}")
    if image.row.data_file == "raw":
        found = pathlib.Path(image.shop.path("data")).read_bytes()
        differs("the raw data file", found.rstrip(b"\0"), image.content.rstrip(b"\0"))
    verify_bitmaps(image)


def said(image, program, command, *words):
    return json.loads(image.run(program.img, command, "--output=json", *words))


def verify_info(image, info):
    specific = info["format-specific"]["data"]
    expected = {"virtual-size": image.size, "cluster-size": image.row.cluster, **image.specific}
    found = {name: {**info, **specific}[name] for name in expected}
    expected.update({"snapshots": sorted(image.snapshots), "encrypted": image.row.encryption is not None,
                     "backing-filename": "base" if image.row.backing else None})
    found.update({"snapshots": sorted(snapshot["name"] for snapshot in info.get("snapshots", [])),
                  "encrypted": info.get("encrypted", False), "backing-filename": info.get("backing-filename")})
    if found != expected:
        raise Failure(f"info says {found}, not {expected}")


def verify_content(image, reader, what, expected, *choice):
    image.img(reader, "convert", "copy", options=("-O", "raw", *choice))
    found = pathlib.Path(image.shop.path("copy")).read_bytes()
    differs(f"{what}, read by {reader.name},", found[:len(expected)] if choice else found, expected)


def verify_bitmaps(image):
    stored = bitmap_bits.Image(image.shop.path("image"))
    found = {name: (flags, granularity, stored.runs(granularity, table, entries))
             for name, flags, granularity, table, entries in stored.records()}
    expected = {name: (bitmap_bits.AUTO if bitmap.enabled else 0, bitmap.granularity, bitmap.runs())
                for name, bitmap in image.bitmaps.items()}
    if found != expected:
        raise Failure(f"bitmaps: {found}\n  not {expected}")


def where(extents):
    """What comes from where. Whether mapped data are known to be zeroes depends on where one cares to look for holes."""
    found = []
    for extent in extents:
        kind = {name: extent[name] for name in ("depth", "present", "data")}
        offset = extent.get("offset")
        if not kind["data"]:
            kind["zero"] = extent["zero"]
        if found:
            last = found[-1]
            here = None if last["offset"] is None else last["offset"] + last["length"]
            if (last["kind"], here) == (kind, offset):
                last["length"] += extent["length"]
                continue
        found.append({"start": extent["start"], "length": extent["length"], "kind": kind, "offset": offset})
    return found


def same(both, said):
    """What both say, which is the same."""
    if said[0] != said[1]:
        pairs = zip(*said) if isinstance(said[0], list) else [said]
        different = next((pair for pair in pairs if pair[0] != pair[1]), said)
        raise Failure("\n  ".join(f"{program.name} says {what}" for program, what in zip(both, different)))
    return said[0]


def differs(what, found, expected):
    """Raises Failure unless the bytes are the same."""
    if found == expected:
        return
    same = 0
    step = 64 * KIB
    while found[same:same + step] == expected[same:same + step]:
        same += step
    while found[same:same + 1] == expected[same:same + 1]:
        same += 1
    raise Failure(f"{what} differs from byte {same} on: {found[same:same + 16].hex()}, not {expected[same:same + 16].hex()} "
                  f"({len(found)} bytes, not {len(expected)})")
