"""The kernel that guests boot and the shell that they run, both from Debian's packages. They are downloaded and unpacked under
the build directory, not installed: the host gets no second kernel in /boot, and its busybox stays as it is."""

import fcntl
import glob
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

DOWNLOAD_LIMIT_S = 300
KERNEL_PACKAGE = "linux-image-cloud-amd64"  # depends on the package that has the kernel
SHELL_PACKAGE = "busybox-static"


class Unavailable(Exception):
    """What a guest needs cannot be had on this machine."""


def _run(words, directory):
    done = subprocess.run(words, cwd=directory, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=DOWNLOAD_LIMIT_S, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _download(directory, options):
    """The packages, in this directory."""
    depends = _run(["apt-cache", *options, "depends", KERNEL_PACKAGE], directory)
    kernels = re.findall(r"Depends: (linux-image-\S+)", depends)
    if not kernels:
        raise Unavailable(f"{KERNEL_PACKAGE} names no kernel")
    _run(["apt-get", *options, "-q", "download", kernels[0], SHELL_PACKAGE], directory)


def _download_with_own_lists(directory):
    """Where the machine's package lists are old or missing: reads new ones, which takes no rights when they lie here."""
    os.makedirs(f"{directory}/lists/partial")
    os.makedirs(f"{directory}/cache/archives/partial")
    options = ["-o", f"Dir::State::Lists={directory}/lists", "-o", f"Dir::Cache={directory}/cache"]
    _run(["apt-get", *options, "-q", "update"], directory)
    _download(directory, options)


def _unpack(work, target):
    for package in glob.glob(f"{work}/*.deb"):
        _run(["dpkg-deb", "-x", package, f"{work}/tree"], work)
    shutil.copyfile(glob.glob(f"{work}/tree/boot/vmlinuz-*")[0], f"{work}/kernel")
    shutil.copy(f"{work}/tree/bin/busybox", f"{work}/busybox")
    os.makedirs(f"{work}/modules")
    for module in glob.glob(f"{work}/tree/lib/modules/*/kernel/**/virtio*.ko", recursive=True):
        shutil.copy(module, f"{work}/modules")
    os.makedirs(f"{work}/ready")
    for name in ("kernel", "busybox", "modules"):
        os.rename(f"{work}/{name}", f"{work}/ready/{name}")
    os.rename(f"{work}/ready", target)


def provide(cache):
    """A directory with `kernel`, `busybox` and `modules/`; made at the first call, by one process at a time."""
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / "debian"
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as work:
            try:
                _download(work, [])
            except Unavailable:
                _download_with_own_lists(work)
            _unpack(work, target)
    return target


def _needs(module):
    data = module.read_bytes()
    found = re.search(rb"\0depends=([^\0]*)\0", data)
    return [name.replace("-", "_") for name in found.group(1).decode().split(",") if name] if found else []


def load_order(directory, wanted):
    """The files of these modules and of what they need, each after what it needs itself. What is not here is built in."""
    files = {path.stem.replace("-", "_"): path for path in directory.glob("*.ko")}
    order = []

    def add(name):
        if name in files and files[name] not in order:
            for other in _needs(files[name]):
                add(other)
            order.append(files[name])

    for name in wanted:
        add(name)
    return order
