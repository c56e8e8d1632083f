"""An archive that a kernel unpacks as its first file system ("newc"), written here: the host needs no cpio, no root and no
device nodes. Kernels take several archives after each other, so what one test adds is an archive of its own."""

import os
import stat

_TRAILER = "TRAILER!!!"


def _padded(data):
    return data + bytes(-len(data) % 4)


def _entry(name, mode, data=b"", number=0):
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + encoded) + _padded(data)


class Archive:
    def __init__(self):
        self._entries = {}

    def directory(self, path):
        path = path.strip("/")
        if path and path not in self._entries:
            self.directory(os.path.dirname(path))
            self._entries[path] = (stat.S_IFDIR | 0o755, b"")

    def file(self, path, data, mode=0o644):
        self.directory(os.path.dirname(path))
        self._entries[path.strip("/")] = (stat.S_IFREG | mode, data)

    def link(self, path, target):
        self.directory(os.path.dirname(path))
        self._entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode())

    def copy(self, source, path, mode=0o755):
        with open(source, "rb") as file:
            self.file(path, file.read(), mode)

    def bytes(self):
        entries = [_entry(name, mode, data, number + 1) for number, (name, (mode, data)) in enumerate(self._entries.items())]
        return b"".join(entries) + _entry(_TRAILER, 0)
