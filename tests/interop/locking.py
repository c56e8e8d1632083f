"""A program that has an image open keeps the other one out, whichever came first."""

import contextlib
import fcntl
import os
import struct
import subprocess
import time

from images import Failure


@contextlib.contextmanager
def held(shop, *arguments, ready, ends_by_itself=True):
    """A process that says `ready` once it has the image open, and holds it until the block ends.
    It is let finish: what is killed with requests in flight keeps its locks until the kernel has
    taken its ring apart, which may be after its parent has waited for it."""
    process = subprocess.Popen([str(a) for a in arguments], cwd=shop.directory, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        if ready is not None:
            seen = b""
            while ready not in seen:
                byte = process.stdout.read(1)
                if not byte:
                    raise Failure(f"{arguments}: {seen.decode(errors='replace')}")
                seen += byte
        yield process
        if not ends_by_itself:
            process.terminate()
        rest, _ = process.communicate(timeout=HOLDER_SECONDS_MAX)
        if process.returncode != 0:
            raise Failure(f"{arguments}: exit status {process.returncode}: "
                          f"{rest.decode(errors='replace')}")
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_until_written(shop, image):
    """Until the holder, which says nothing when it is ready, has its lock as a writer. Only looks:
    a program that opened the image would for that moment lock the holder out."""
    with open(shop.path(image), "rb") as file:
        for _ in range(1500):
            probe = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, WRITER_BYTE, 1, 0)
            answer = fcntl.fcntl(file, F_OFD_GETLK, probe)
            if struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK:
                return
            time.sleep(0.02)
    raise Failure(f"nobody holds {image}")


HOLDER_SECONDS_MAX = 60
WRITER_BYTE = 101  # locked by whoever may write
F_OFD_GETLK = 36
WRITE_REFUSED = 'Failed to get "write" lock'
SHARED_WRITE_REFUSED = 'Failed to get shared "write" lock'
HINT = "Is another process using the image ["


def writer_is_qemu(shop):
    shop.qemu("create", "-f", "qcow2", "held.qcow2", "64M")
    with held(shop, "qemu-io", "-f", "qcow2", "held.qcow2", ready=b"qemu-io>"):
        for command in (("info",), ("check",), ("map",)):
            shop.platter(*command, "held.qcow2", status=1, text=SHARED_WRITE_REFUSED)
            shop.platter(*command, "held.qcow2", status=1, text=HINT)
            shop.platter(*command, "-U", "held.qcow2")
        shop.platter("resize", "held.qcow2", "128M", status=1, text=WRITE_REFUSED)
        shop.platter("convert", "-O", "raw", "held.qcow2", "out.raw", status=1,
                     text=SHARED_WRITE_REFUSED)
        shop.platter("convert", "-U", "-O", "raw", "held.qcow2", "out.raw")
        shop.platter("convert", "-f", "raw", "-O", "qcow2", "out.raw", "held.qcow2", status=1,
                     text=WRITE_REFUSED)
        shop.platter("create", "-f", "qcow2", "held.qcow2", "1M", status=1, text=WRITE_REFUSED)
    shop.qemu("check", "held.qcow2", text="No errors were found")
    shop.platter("resize", "held.qcow2", "128M")
    shop.remove("held.qcow2", "out.raw")


def reader_is_qemu(shop):
    shop.qemu("create", "-f", "qcow2", "held.qcow2", "64M")
    with held(shop, "qemu-io", "-r", "-f", "qcow2", "held.qcow2", ready=b"qemu-io>"):
        shop.platter("info", "held.qcow2")
        shop.platter("check", "held.qcow2")
        shop.platter("resize", "held.qcow2", "128M", status=1, text="lock")
    shop.remove("held.qcow2")


def server_is_qemu(shop):
    shop.qemu("create", "-f", "qcow2", "held.qcow2", "64M")
    with held(shop, "qemu-nbd", "-t", "-k", shop.path("nbd.socket"), "-f", "qcow2", "held.qcow2",
              ready=None, ends_by_itself=False):
        wait_until_written(shop, "held.qcow2")
        shop.platter("check", "held.qcow2", status=1, text=SHARED_WRITE_REFUSED)
        shop.platter("resize", "held.qcow2", "128M", status=1, text=WRITE_REFUSED)
    shop.remove("held.qcow2", "nbd.socket")


def writer_is_platter(shop):
    shop.platter("create", "-f", "qcow2", "held.qcow2", "64M")
    with held(shop, shop.hold_program, "write", "qcow2", "held.qcow2", ready=b"holding"):
        shop.qemu("info", "held.qcow2", status=1, text=SHARED_WRITE_REFUSED)
        shop.qemu("info", "-U", "held.qcow2")
        shop.qemu("resize", "held.qcow2", "128M", status=1, text=WRITE_REFUSED)
        shop.run("qemu-io", "-f", "qcow2", "-c", "write 0 1M", "held.qcow2", status=1,
                 text=WRITE_REFUSED)
        shop.platter("info", "held.qcow2", status=1, text=SHARED_WRITE_REFUSED)
        shop.platter("resize", "held.qcow2", "128M", status=1, text=WRITE_REFUSED)
    shop.qemu("check", "held.qcow2", text="No errors were found")
    shop.remove("held.qcow2")


def reader_is_platter(shop):
    shop.platter("create", "-f", "qcow2", "held.qcow2", "64M")
    with held(shop, shop.hold_program, "read", "qcow2", "held.qcow2", ready=b"holding"):
        shop.qemu("info", "held.qcow2")
        shop.qemu("check", "held.qcow2")
        shop.qemu("resize", "held.qcow2", "128M", status=1, text="lock")
    shop.remove("held.qcow2")


def backing_file_is_held(shop):
    """An image that backs an overlay in use may be read by others, not written."""
    shop.platter("create", "-f", "qcow2", "base.qcow2", "64M")
    shop.platter("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    with held(shop, shop.hold_program, "write", "qcow2", "top.qcow2", ready=b"holding"):
        shop.qemu("info", "base.qcow2")
        shop.qemu("resize", "base.qcow2", "128M", status=1, text="lock")
    with held(shop, "qemu-io", "-f", "qcow2", "top.qcow2", ready=b"qemu-io>"):
        shop.platter("info", "base.qcow2")
        shop.platter("resize", "base.qcow2", "128M", status=1, text="lock")
    shop.remove("base.qcow2", "top.qcow2")


def run(shop):
    writer_is_qemu(shop)
    reader_is_qemu(shop)
    server_is_qemu(shop)
    if shop.hold_program:
        writer_is_platter(shop)
        reader_is_platter(shop)
        backing_file_is_held(shop)
