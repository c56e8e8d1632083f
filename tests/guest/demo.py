#!/usr/bin/env python3
"""A guest boots with an image for its disk, which has an ext4 file system, and leaves a file there.

usage: demo.py PROGRAM_DIRECTORY IMAGE CACHE_DIRECTORY
"""

import pathlib
import sys
import tempfile

import backends
import guest

SCRIPT = """
echo "$(uname -sr), on $(nproc) processors, has a disk of $(($(cat /sys/block/vda/size) / 2048)) MiB"
mount -t ext4 /dev/vda /mnt || exit 1
echo "its file system holds $(df -m /mnt | tail -1 | while read -r name size used rest; do echo $used; done) MiB in files"
(uname -a; date) > /mnt/from-the-guest && sync && umount /mnt || exit 1
echo "it has left a file, /from-the-guest"
"""


def main():
    programs, image, cache = sys.argv[1:]
    print(f"$ platter serve {image} --vhost-user disk.sock")
    print("$ qemu-system-x86_64 ... -device vhost-user-blk-pci,chardev=disk,num-queues=2", flush=True)
    guests = guest.Guests(cache)
    with tempfile.TemporaryDirectory(prefix="platter-guest-") as name:
        directory = pathlib.Path(name)
        with backends.Platter(programs, image, directory / "socket", queues=2) as backend:
            for line in guests.run(directory, SCRIPT, backend.device("split"), processors=2):
                print(f"the guest: {line}")
            backend.stop()


if __name__ == "__main__":
    main()
