"""The programs that serve a disk to a guest, told apart by name alone: every test runs against each."""

import argparse
import os
import select
import signal
import subprocess
import time

READY_LIMIT_S = 60
STOP_LIMIT_S = 60
ERROR_LIMIT_S = 300
_LISTENING = "00010000"


class Backend:
    """One of them at work on an image; a context. It can be killed and started anew on the same socket."""

    name = None
    lacks = {}  # what it cannot do, and why that is so
    first_cache_type = "write back"  # that a guest finds
    more_words = ()  # of its command line
    errors = None  # where it writes what is wrong: here

    def __init__(self, programs, image, path, queues=1, writable=True, format="qcow2", exports=1):
        self.programs = programs
        self.image = image
        # Of as many exports of the one node.
        self.paths = [str(path), *(f"{path}-{number}" for number in range(1, exports))]
        self.states = f"{path}.states"  # what a test that fails leaves goes with its other files
        self.queues = queues
        self.writable = writable
        self.format = format
        self._process = None

    def command(self):
        raise NotImplementedError

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()

    def start(self):
        for path in self.paths:
            if os.path.exists(path):
                os.unlink(path)
        self._process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                         stderr=self.errors)
        deadline = time.monotonic() + READY_LIMIT_S
        while not self._listens():
            if self._process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self._process.returncode} before it listened")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name} does not listen on {' and '.join(self.paths)}")
            time.sleep(0.005)

    def _listens(self):
        """Sees it in the kernel's table: a connection would be the one that it waits for."""
        with open("/proc/net/unix") as table:
            listening = [line.split()[-1] for line in table if f" {_LISTENING} " in line]
        return all(path in listening for path in self.paths)

    def kill(self):
        self._process.kill()
        self._process.wait()

    def signal(self, number):
        self._process.send_signal(number)

    def first_error(self):
        """The next line of what it says is wrong, where that goes to a pipe."""
        ready, _, _ = select.select([self._process.stderr], [], [], ERROR_LIMIT_S)
        if not ready:
            raise AssertionError(f"{self.name} says nothing")
        return self._process.stderr.readline().decode()

    def stop(self):
        """As a person does; it writes back what it has."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(STOP_LIMIT_S)
        if status != 0:
            raise AssertionError(f"{self.name} ended with {status} when it was told to stop")

    def device(self, ring, reconnect=False, export=0):
        """QEMU's options for the disk."""
        again = ",reconnect=1" if reconnect else ""
        packed = "on" if ring == "packed" else "off"
        return ["-chardev", f"socket,id=back-end,path={self.paths[export]}{again}",
                "-device", f"vhost-user-blk-pci,chardev=back-end,num-queues={self.queues},packed={packed}"]


class Daemon(Backend):
    """What has the command line of qemu-storage-daemon."""

    def program(self):
        raise NotImplementedError

    def command(self):
        writable, read_only = ("on", "off") if self.writable else ("off", "on")
        # Discards are passed on, as platter does.
        options = f"read-only={read_only},discard=unmap"
        # Without an iothread: with one it hangs, now and then, when it is told to stop just after a front-end has left.
        words = [*self.program(),
                 "--blockdev", f"driver=file,node-name=file,filename={self.image},{options}",
                 "--blockdev", f"driver={self.format},node-name=disk,file=file,{options}"]
        for number, path in enumerate(self.paths):
            words += ["--export", f"type=vhost-user-blk,id=export{number},node-name=disk,addr.type=unix,"
                                  f"addr.path={path},writable={writable},num-queues={self.queues}"]
        return words


class StorageDaemon(Daemon):
    name = "qemu-storage-daemon"
    lacks = {"packed": "its export has split rings only"}
    # Its configuration space begins with a "wce" of 0, whatever the cache.
    first_cache_type = "write through"

    def program(self):
        return ["qemu-storage-daemon"]


class PlatterDaemon(Daemon):
    name = "platter-daemon"

    def program(self):
        return [f"{self.programs}/platter", "daemon", "--state", self.states]


class Platter(Backend):
    name = "platter"

    def command(self):
        command = [f"{self.programs}/platter", "serve", self.image, "-f", self.format, "--vhost-user", self.paths[0],
                   "--queues", str(self.queues), "--state", self.states, "-q", *self.more_words]
        return command if self.writable else [*command, "--read-only"]


BACKENDS = {backend.name: backend for backend in (Platter, PlatterDaemon, StorageDaemon)}


def arguments(description):
    """What every test here takes."""
    parser = argparse.ArgumentParser(usage=description.split("\n\n")[1])
    parser.add_argument("--programs", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--ring", choices=("split", "packed"), default="split")
    return parser
