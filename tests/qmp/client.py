"""QMP clients: of a program's standard input and output, and of a UNIX socket."""

import json
import re
import socket
import subprocess
import time

TIMEOUT_S = 30


def talk_stdio(program, requests, directory, arguments=()):
    """The replies to `requests` (bytes or values), the greeting first, and the exit status."""
    text = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n"
                    for one in requests)
    done = subprocess.run([program, "--chardev", "stdio,id=m", *arguments, "--monitor", "m"], cwd=directory,
                          input=text, capture_output=True, timeout=TIMEOUT_S)
    # The reference says what it makes, in between.
    lines = [re.sub(r"^Formatting .*\n", "", line) for line in done.stdout.decode().split("\r\n")]
    replies = [json.loads(line) for line in lines if line.strip()]
    return replies, done.returncode, done.stderr.decode()


class SocketClient:
    """A daemon that listens at a UNIX socket, and a client of it."""

    def __init__(self, program, directory, arguments=(), name="qmp.sock", stderr=subprocess.PIPE):
        self.path = str(directory / name)
        self.process = subprocess.Popen(
            [program, *arguments, "--chardev", f"socket,path={self.path},server=on,wait=off,id=m", "--monitor", "m"],
            cwd=directory, stderr=stderr)
        self.connect()

    def connect(self):
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_S)
            try:
                self.socket.connect(self.path)
                break
            except OSError:
                self.socket.close()
                if self.process.poll() is not None:
                    raise AssertionError(self.process.stderr.read().decode()) from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.stream = self.socket.makefile("rb")
        self.greeting = self.read()

    def read(self):
        line = self.stream.readline()
        return json.loads(line) if line else None

    def ask(self, request):
        self.socket.sendall((request if isinstance(request, bytes) else json.dumps(request).encode()) + b"\n")
        return self.read()

    def command(self, command, **arguments):
        request = {"execute": command}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.ask(request)

    def hang_up(self):
        self.stream.close()
        self.socket.close()

    def end(self, how=None):
        """Asks it to quit, or sends it the signal `how`; its exit status."""
        if how is None:
            self.command("qmp_capabilities")  # refused if it was said before
            self.ask({"execute": "quit"})
        else:
            self.process.send_signal(how)
        status = self.process.wait(TIMEOUT_S)
        self.hang_up()
        self.process.stderr.close()
        return status
