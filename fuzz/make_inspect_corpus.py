#!/usr/bin/env python3
"""Writes fuzz/corpus/inspect: the crafted images of tests/inspect, in the form that fuzz_inspect.cc reads.

Run it when crafted.py has new images; findings of the fuzzer lie beside and are left alone.
"""

import pathlib
import re
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests" / "inspect"))
import crafted  # noqa: E402

MAX_RUN = 0xffff
MAX_FILE = 8 << 10


def encode(content):
    out = struct.pack("<Q", len(content))
    # Runs that a gap of zeroes longer than a run's own header parts.
    for match in re.finditer(rb"[^\0](?:\0{0,16}[^\0])*", content):
        for begin in range(match.start(), match.end(), MAX_RUN):
            part = content[begin:min(begin + MAX_RUN, match.end())]
            out += struct.pack("<QH", begin, len(part)) + part
    return out


def main():
    corpus = HERE / "corpus" / "inspect"
    corpus.mkdir(parents=True, exist_ok=True)
    images = {image.name: image.content for image in crafted.CRAFTED}
    images |= {f"sound-{name}": content for name, content in crafted.SOUND.items()}
    for name, content in images.items():
        encoded = encode(content)
        if len(encoded) <= MAX_FILE:
            (corpus / name).write_bytes(encoded)
    (corpus / "policy.json").write_text('{"extends": "openstack", "formats": ["raw"], "extent": "relative", '
                                        '"max-file-size": "1G", "subformats": {"vmdk": ["x"]}, "encryption": false}')


if __name__ == "__main__":
    main()
