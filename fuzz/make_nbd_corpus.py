#!/usr/bin/env python3
"""Makes the seeds of fuzz_nbd: what clients of an NBD server say, by the protocol's own numbers.

usage: fuzz/make_nbd_corpus.py DIRECTORY
"""

import pathlib
import struct
import sys

EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_CONTEXTS, SET_CONTEXTS, EXTENDED = 1, 2, 3, 5, 6, 7, 8, 9, 10, 11
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, ONE, FAST, PAYLOAD = (1 << bit for bit in range(6))
HELLO = struct.pack(">I", 3)


def text(word):
    return struct.pack(">I", len(word)) + word


def option(number, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data


def choose(number, name, *infos):
    return option(number, text(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos))


def contexts(number, name, *queries):
    return option(number, text(name) + struct.pack(">I", len(queries)) + b"".join(map(text, queries)))


def request(command, offset, length, flags=0, data=b""):
    return struct.pack(">IHHQQI", 0x25609513, flags, command, 77, offset, length) + data


def extended(command, offset, length, flags=0, data=b""):
    return struct.pack(">IHHQQQ", 0x21E41C71, flags, command, 78, offset, length) + data


ALL = (b"base:allocation", b"qemu:allocation-depth", b"qemu:dirty-bitmap:b")
REQUESTS = (request(WRITE, 1000, 600, FUA, b"w" * 600) + request(READ, 900, 1000) + request(ZEROES, 0, 70000, NO_HOLE)
            + request(ZEROES, 4096, 4096, FAST) + request(TRIM, 8192, 65536, FUA) + request(CACHE, 0, 262144) + request(FLUSH, 0, 0)
            + request(READ, 262000, 1000) + request(WRITE, 262000, 300, 0, b"p" * 300))
SEEDS = {
    "list": HELLO + option(LIST) + option(ABORT),
    "info": HELLO + choose(INFO, b"disk", 1, 2, 3) + choose(INFO, b"", 3) + choose(GO, b"nothing"),
    "old": struct.pack(">I", 1) + option(EXPORT_NAME, b"disk") + REQUESTS,
    "simple": HELLO + choose(GO, b"disk", 3) + REQUESTS + request(DISC, 0, 0),
    "structured": HELLO + option(STRUCTURED) + contexts(LIST_CONTEXTS, b"disk") + contexts(SET_CONTEXTS, b"disk", *ALL)
    + choose(GO, b"disk") + REQUESTS + request(STATUS, 0, 262144) + request(STATUS, 5000, 100, ONE) + request(READ, 0, 262144)
    + request(READ, 0, 262144, DF) + request(DISC, 0, 0),
    "extended": HELLO + option(EXTENDED) + contexts(SET_CONTEXTS, b"disk", *ALL) + choose(GO, b"disk")
    + extended(WRITE, 0, 512, PAYLOAD, b"e" * 512) + extended(READ, 0, 131072) + extended(ZEROES, 0, 262144)
    + extended(STATUS, 0, 262144) + extended(STATUS, 0, 16, PAYLOAD, struct.pack(">QII", 65536, 0, 2)) + extended(FLUSH, 0, 0)
    + extended(DISC, 0, 0),
    "readonly": HELLO + option(STRUCTURED) + contexts(SET_CONTEXTS, b"", b"base:allocation") + choose(GO, b"")
    + request(READ, 1 << 31, 100000) + request(WRITE, 0, 4, 0, b"none") + request(STATUS, 0, 0xFFFFFE00) + request(TRIM, 0, 1),
    "options": HELLO + b"".join(option(number, b"xx") for number in range(12)) + option(STRUCTURED) * 2 + option(EXTENDED) * 2
    + contexts(LIST_CONTEXTS, b"disk", b"base:", b"qemu:", b"qemu:dirty-bitmap:") + choose(GO, b"disk") + extended(FLUSH, 0, 0),
}


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, seed in SEEDS.items():
        (directory / name).write_bytes(b"\0\0" + seed)
        (directory / f"{name}.pieces").write_bytes(b"\7\0" + seed)
    tls = HELLO + option(LIST) + option(STARTTLS)
    (directory / "tls").write_bytes(b"\0\1" + tls + SEEDS["simple"][4:])


main()
