#!/usr/bin/env python3
"""Writes the encrypted seeds of fuzz/corpus/qcow2, for the secret that fuzz_keys.h has: make_encrypted_corpus.py PLATTER

LUKS: an image laid out byte by byte around the header and first key slot of a volume that PLATTER makes; the other
slots, which are not in use, lie outside. What the data clusters hold decrypts to something. AES: seeds that are there
without, said to be encrypted.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus" / "qcow2"
CLUSTER = 512
COPIED = 1 << 63
HEADER, REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, DATA = range(6)
DATA_CLUSTERS = 4
CRYPTO = DATA + DATA_CLUSTERS
CRYPTO_HEADER_EXTENSION = 0x0537BE77
SLOT_BYTES = 4000 * 16  # stripes of an AES-128 key
LUKS_OPTIONS = "key-secret=s,iter-time=1,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64"


def luks_header(platter):
    with tempfile.TemporaryDirectory() as directory:
        volume = pathlib.Path(directory) / "volume"
        subprocess.run([platter, "create", "-q", "-f", "luks", "--object", "secret,id=s,data=abc", "-o", LUKS_OPTIONS,
                        volume, "1M"], check=True)
        # An iteration count is measured; the least there is is quick enough on any machine.
        header = volume.read_bytes()[:4096 + SLOT_BYTES]
    return header + bytes(-len(header) % CLUSTER)


def luks_image(header):
    clusters = CRYPTO + len(header) // CLUSTER
    image = bytearray(clusters * CLUSTER)

    def put(offset, kind, *values):
        struct.pack_into(">" + kind, image, offset, *values)

    put(0, "II", 0x514649FB, 3)
    put(20, "IQI", 9, 64 * CLUSTER, 2)  # what one L2 table maps; LUKS
    put(36, "IQQI", 1, L1 * CLUSTER, REFCOUNT_TABLE * CLUSTER, 1)
    put(96, "II", 4, 104)
    put(104, "IIQQ", CRYPTO_HEADER_EXTENSION, 16, CRYPTO * CLUSTER, len(header))
    put(REFCOUNT_TABLE * CLUSTER, "Q", REFCOUNT_BLOCK * CLUSTER)
    for cluster in range(clusters):
        put(REFCOUNT_BLOCK * CLUSTER + 2 * cluster, "H", 1)
    put(L1 * CLUSTER, "Q", L2 * CLUSTER | COPIED)
    for i in range(DATA_CLUSTERS):
        put(L2 * CLUSTER + 16 * i, "Q", (DATA + i) * CLUSTER | COPIED)
        image[(DATA + i) * CLUSTER:(DATA + i + 1) * CLUSTER] = bytes([i + 1]) * CLUSTER
    put(L2 * CLUSTER + 8 * 60, "Q", 1)  # reads as zeroes
    image[CRYPTO * CLUSTER:] = header
    return bytes(image)


def main():
    (CORPUS / "encrypted_luks.qcow2").write_bytes(luks_image(luks_header(sys.argv[1])))
    for name in ("plain_1024", "snap", "compressed_zlib", "v2"):
        image = bytearray((CORPUS / f"{name}.qcow2").read_bytes())
        struct.pack_into(">I", image, 32, 1)
        (CORPUS / f"encrypted_aes_{name}.qcow2").write_bytes(image)


if __name__ == "__main__":
    main()
