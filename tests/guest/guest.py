"""A Linux guest under QEMU: boots Debian's kernel, runs one shell script as root, reports what it said.

The guest has two serial ports. The kernel speaks on the first, at warnings and worse; the script on the second, so that
nothing runs into its lines. The processor is QEMU's own (TCG): tests run where there is no /dev/kvm.
"""

import os
import pathlib
import re
import subprocess
import threading
import time

import initramfs
import kernel

LIMIT_S = 180  # of a guest's life, unless a test says otherwise; a machine that is busy boots slowly
MEMORY_MIB = 320
_MODULES = ["virtio_pci", "virtio_blk"]
# In /tools: the shell takes a word alone for a command of its own where it has one of that name.
_TOOLS = ["/sbin/mke2fs", "/sbin/e2fsck", "/sbin/blkdiscard"]
_ENDED = "guest-script-ended"
# What a kernel says when a disk, or it itself, is in trouble.
_TROUBLE = re.compile(r"I/O error|Kernel panic|BUG:|Oops|blocked for more than|EXT4-fs error|timed? ?out|virtio.*(broken|failed|id .* is not)")

_INIT = f"""#!/bin/busybox sh
export PATH=/bin:/sbin
mount -t devtmpfs none /dev; mount -t proc none /proc; mount -t sysfs none /sys; mount -t tmpfs none /tmp
exec > /dev/ttyS1 2>&1 < /dev/null
stty -F /dev/ttyS1 raw -echo
while read -r module; do insmod "$module" || echo "cannot load $module"; done < /modules/order
sh /script
echo "{_ENDED} $?"
sync
poweroff -f
"""

# Nothing that a test of disks needs: each costs a moment of every boot. And a page is filled by the disk alone: a kernel that
# zeroes it first has it copied by a migration whether the back-end notes its writes or not.
_COMMAND_LINE = ("console=ttyS0 quiet loglevel=5 panic=-1 cryptomgr.notests mitigations=off audit=0 "
                 "random.trust_cpu=on tsc=reliable init_on_alloc=0")


class GuestFailed(AssertionError):
    pass


def _libraries(program):
    listed = subprocess.run(["ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def _base_archive(parts, programs):
    archive = initramfs.Archive()
    for name in ("dev", "proc", "sys", "tmp", "mnt", "sbin"):
        archive.directory(name)
    archive.copy(parts / "busybox", "bin/busybox")
    applets = subprocess.run([parts / "busybox", "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            archive.link(f"bin/{applet}", "busybox")
    modules = kernel.load_order(parts / "modules", _MODULES)
    for module in modules:
        archive.copy(module, f"modules/{module.name}", 0o644)
    archive.file("modules/order", "".join(f"/modules/{module.name}\n" for module in modules).encode())
    for tool in _TOOLS:
        archive.copy(tool, f"tools/{os.path.basename(tool)}")
        for library in _libraries(tool):
            archive.copy(library, library)
    for program in programs:
        archive.copy(program, f"bin/{os.path.basename(program)}")
    archive.file("init", _INIT.encode(), 0o755)
    return archive.bytes()


class Guests:
    """Boots guests that have these programs, statically linked, beside the usual ones."""

    def __init__(self, cache, programs=()):
        parts = kernel.provide(cache)
        self.kernel = parts / "kernel"
        self._base = _base_archive(parts, programs)

    def boot(self, directory, script, devices=(), processors=1, limit_s=LIMIT_S):
        """A Guest at work, its files in the directory; to be used as a context."""
        archive = initramfs.Archive()
        archive.file("script", script.encode())
        initrd = pathlib.Path(directory) / "initrd"
        initrd.write_bytes(self._base + archive.bytes())
        return Guest(self.kernel, initrd, pathlib.Path(directory), devices, processors, limit_s)

    def run(self, directory, script, devices=(), processors=1, limit_s=LIMIT_S):
        """The lines that the script said; GuestFailed if it failed, or the kernel saw trouble."""
        with self.boot(directory, script, devices, processors, limit_s) as guest:
            return guest.finish()


class Guest:
    def __init__(self, kernel_file, initrd, directory, devices, processors, limit_s):
        self.lines = []  # that the script has said so far
        self._console = directory / "console"
        # QEMU's own messages: among the script's lines they would stand in the middle of one.
        self._messages = directory / "messages"
        self._deadline = time.monotonic() + limit_s
        # With "arat" a processor that idles is woken by its own timer; without, now and then by nothing.
        with open(self._messages, "wb") as messages:
            self._process = subprocess.Popen(
                ["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35,memory-backend=memory", "-cpu", "qemu64,+arat",
                 "-smp", str(processors), "-m", f"{MEMORY_MIB}M",
                 "-object", f"memory-backend-memfd,id=memory,size={MEMORY_MIB}M,share=on",
                 "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                 "-kernel", str(kernel_file), "-initrd", str(initrd), "-append", _COMMAND_LINE,
                 "-serial", f"file:{self._console}", "-serial", "stdio", *devices],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages, text=True, errors="replace")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\r\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()

    def running(self):
        return self._process.poll() is None

    def tell(self, line):
        """To a script that reads it from /dev/ttyS1."""
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def said(self):
        """For a person: all of it."""
        console = self._console.read_text(errors="replace") if self._console.exists() else ""
        return "\n".join(["script:", *self.lines, "kernel:", console, "QEMU:", self._messages.read_text(errors="replace")])

    def wait_for(self, test):
        """Until test(lines) is true of what the script has said."""
        while not test(self.lines):
            if not self.running() or time.monotonic() > self._deadline:
                raise GuestFailed(f"the guest did not come to where it was awaited\n{self.said()}")
            time.sleep(0.01)

    def wait_for_end(self):
        """Of the machine, whatever its script says; GuestFailed if the kernel saw trouble."""
        try:
            self._process.wait(max(0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise GuestFailed(f"the guest did not end in time\n{self.said()}") from None
        self._reader.join()
        if _TROUBLE.search(self._console.read_text(errors="replace")):
            raise GuestFailed(f"the guest's kernel met trouble\n{self.said()}")

    def finish(self):
        self.wait_for_end()
        ended = [line.split()[1] for line in self.lines if line.startswith(_ENDED)]
        if ended != ["0"]:
            raise GuestFailed(f"the script ended with {ended or 'nothing'}\n{self.said()}")
        return self.lines[:-1]


def facts(lines):
    """Of lines "name=value"."""
    return dict(line.split("=", 1) for line in lines if re.match(r"\w+=", line))
