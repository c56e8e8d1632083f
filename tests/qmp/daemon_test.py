#!/usr/bin/env python3
"""platter daemon as a whole: clients that come and go, signals, the pid file, the background."""

import ctypes
import json
import os
import pathlib
import platform
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import client

PLATTER = str(pathlib.Path(sys.argv.pop(1)).resolve()) if len(sys.argv) > 1 else "platter"
COMPAT = str(pathlib.Path(PLATTER).parent / "compat" / "qemu-storage-daemon")
TIMEOUT_S = 30


def run(*words, **options):
    return subprocess.run(words, capture_output=True, timeout=TIMEOUT_S, **options)


def add_key(description, content):
    """The serial number of a key in the session's keyring, or -1. add_key(2), which the C library lacks."""
    number = {"x86_64": 248, "aarch64": 217}[platform.machine()]
    session_keyring = -3
    return ctypes.CDLL(None, use_errno=True).syscall(number, b"user", description.encode(), content, len(content), session_keyring)


def gone(pid):
    """Whether the process has ended; it is nobody's child here."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class DaemonTest(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.directory = pathlib.Path(self.scratch.name)
        run(PLATTER, "create", "-f", "qcow2", self.directory / "disk.qcow2", "16M", check=True)
        self.node = ("--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2")

    def tearDown(self):
        self.scratch.cleanup()

    def start(self, *arguments):
        words = self.directory / "daemon"
        # What a daemon that does not end leaves goes with the other files.
        words.write_text(f"#!/bin/sh\nexec {PLATTER} daemon --state states \"$@\"\n")
        words.chmod(0o755)
        daemon = client.SocketClient(str(words), self.directory, arguments)
        self.addCleanup(daemon.process.kill)
        return daemon

    def is_sound(self):
        return run(PLATTER, "check", self.directory / "disk.qcow2").returncode == 0

    def test_clients_come_one_after_the_other(self):
        daemon = self.start(*self.node)
        self.assertEqual(daemon.command("qmp_capabilities"), {"return": {}})
        self.assertEqual(daemon.command("block_resize", node_name="disk", size=33554432), {"return": {}})
        daemon.hang_up()
        daemon.connect()
        self.assertIn("QMP", daemon.greeting)
        refused = daemon.command("query-block")
        self.assertEqual(refused["error"]["class"], "CommandNotFound")
        daemon.command("qmp_capabilities")
        nodes = daemon.command("query-named-block-nodes", flat=True)["return"]
        self.assertEqual({node["image"]["virtual-size"] for node in nodes if node["node-name"] == "disk"}, {33554432})
        self.assertEqual(daemon.end(), 0)
        self.assertFalse((self.directory / "qmp.sock").exists())
        self.assertTrue(self.is_sound())

    def test_devices_are_for_who_speaks_to_platter(self):
        commands = ("device_add", "device_del", "stop", "cont", "query-status")
        ours = self.start(*self.node)
        ours.command("qmp_capabilities")
        known = {command["name"] for command in ours.command("query-commands")["return"]}
        self.assertLessEqual(set(commands), known)
        schema = ours.command("query-qmp-schema")["return"]
        self.assertLessEqual({"BLOCK_IO_ERROR", "STOP", "RESUME", "DEVICE_DELETED"},
                             {entity["name"] for entity in schema if entity["meta-type"] == "event"})
        self.assertEqual(ours.command("query-status")["return"],
                         {"running": True, "singlestep": False, "status": "running"})
        self.assertEqual(ours.end(), 0)
        other = client.SocketClient(COMPAT, self.directory, self.node)
        self.addCleanup(other.process.kill)
        other.command("qmp_capabilities")
        for command in commands:
            self.assertEqual(other.command(command)["error"]["class"], "CommandNotFound", command)
        self.assertEqual(other.end(), 0)
        self.assertNotEqual(run(COMPAT, "--device", "virtio-blk,id=d").returncode, 0)

    def test_a_device_that_cannot_be_is_refused_in_one_line(self):
        path = str(self.directory / "device.sock")
        address = {"type": "unix", "path": path}
        for properties, why in (({}, "drive property not set"),
                                ({"drive": "nobody"}, "Property 'virtio-blk.drive' can't find value 'nobody'"),
                                ({"drive": "disk", "num-queues": 0}, "num-queues property must be larger than 0"),
                                ({"drive": "disk", "num-queues": 300}, "300 queues; vhost-user has at most 256"),
                                ({"drive": "disk", "iothread": "t"}, 'iothread "t" not found'),
                                ({"drive": "disk", "iothread-vq-mapping": [{"iothread": "t"}]}, 'iothread "t" not found'),
                                ({"drive": "disk", "vectors": 3}, "Parameter 'vectors' is not taken")):
            description = json.dumps({"driver": "virtio-blk", "id": "d", "addr": address, **properties})
            done = run(PLATTER, "daemon", *self.node, "--device", description, cwd=self.directory, text=True)
            self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done.stderr)
            self.assertIn(why, done.stderr)
            self.assertFalse(os.path.exists(path))
        self.assertTrue(self.is_sound())

    def test_two_devices_on_one_disk_share_it_only_where_that_is_said(self):
        daemon = self.start(*self.node)
        daemon.command("qmp_capabilities")

        def add(name, **properties):
            return daemon.ask({"execute": "device_add", "arguments": {
                "driver": "virtio-blk", "id": name, "drive": "disk",
                "addr": {"type": "unix", "path": str(self.directory / name)}, **properties}})

        self.assertEqual(add("a"), {"return": {}})
        self.assertIn("Permission conflict on node 'disk'", add("b")["error"]["desc"])
        event = daemon.command("device_del", id="a")
        self.assertEqual(daemon.read(), {"return": {}})
        self.assertEqual((event["event"], event["data"]), ("DEVICE_DELETED", {"device": "a", "path": "/machine/peripheral/a"}))
        self.assertEqual(add("a", **{"share-rw": True}), {"return": {}})
        self.assertEqual(add("b", **{"share-rw": True}), {"return": {}})
        self.assertEqual([one["qdev"] for one in daemon.command("query-block")["return"]], ["a", "b"])
        self.assertEqual(daemon.end(), 0)
        self.assertEqual([name for name in ("a", "b") if os.path.exists(self.directory / name)], [])

    def test_signals_end_it_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            daemon = self.start(*self.node)
            daemon.command("qmp_capabilities")
            daemon.command("block-dirty-bitmap-add", node="disk", name=f"b{number}", persistent=True)
            self.assertEqual(daemon.end(number), 0)
            described = json.loads(run(PLATTER, "info", "--output=json", self.directory / "disk.qcow2").stdout)
            bitmaps = described["format-specific"]["data"]["bitmaps"]
            self.assertIn(f"b{number}", {bitmap["name"] for bitmap in bitmaps})
            self.assertNotIn("in-use", {flag for bitmap in bitmaps for flag in bitmap["flags"]})
        self.assertTrue(self.is_sound())

    def test_a_signal_ends_the_wait_for_a_first_client(self):
        words = (PLATTER, "daemon", "--state", "states", *self.node, "--chardev", "socket,path=s,server=on,id=c", "--monitor", "c")
        with subprocess.Popen(words, cwd=self.directory, stderr=subprocess.PIPE, text=True) as daemon:
            self.addCleanup(daemon.kill)
            until(lambda: (self.directory / "s").exists())
            daemon.terminate()
            said = daemon.communicate(timeout=TIMEOUT_S)[1]
        self.assertEqual((daemon.returncode, said.count("\n")), (1, 1), said)
        self.assertIn("Interrupted before anybody connected", said)
        self.assertEqual(sorted(os.listdir(self.directory)), ["disk.qcow2", "states"])
        self.assertEqual(os.listdir(self.directory / "states"), [])

    def test_a_client_that_does_not_read_holds_nothing_up(self):
        daemon = self.start(*self.node)
        daemon.socket.sendall(b'{"execute": "qmp_capabilities"}\n')
        request = b'{"execute": "query-qmp-schema"}\n' * 200
        daemon.socket.settimeout(0.5)
        try:
            for _ in range(200):
                daemon.socket.sendall(request)
        except TimeoutError:
            pass  # it is not heard any more either
        self.assertEqual(daemon.process.poll(), None)
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.process.wait(TIMEOUT_S), 0)
        daemon.hang_up()
        daemon.process.stderr.close()

    def test_a_broken_line_does_not_end_a_session(self):
        daemon = self.start()
        daemon.command("qmp_capabilities")
        for broken in (b"{]", b"\xff\xfe", b"[" * 65, b'"' + b"x" * (2 << 20)):
            self.assertEqual(daemon.ask(broken)["error"]["class"], "GenericError")
            self.assertEqual(daemon.command("query-jobs"), {"return": []})
        self.assertEqual(daemon.end(), 0)

    def test_requests_that_come_together_are_answered_in_order(self):
        daemon = self.start(*self.node)
        daemon.command("qmp_capabilities")
        requests = [{"execute": "query-block-jobs", "id": {"number": i, "text": "\u00e9" * (i % 7)}} for i in range(300)]
        text = b"".join(json.dumps(request).encode() for request in requests)
        for i in range(0, len(text), 1000):  # cut anywhere
            daemon.socket.sendall(text[i:i + 1000])
        for request in requests:
            self.assertEqual(daemon.read(), {"return": [], "id": request["id"]})
        self.assertEqual(daemon.end(), 0)

    def test_out_of_band_comes_first_and_is_refused(self):
        daemon = self.start(*self.node)
        daemon.command("qmp_capabilities", enable=["oob"])
        daemon.socket.sendall(b'{"execute": "query-version", "id": 1}{"exec-oob": "query-version", "id": 2}')
        replies = [daemon.read(), daemon.read()]
        by_id = {reply["id"]: reply for reply in replies}
        self.assertIn("return", by_id[1])
        self.assertEqual(by_id[2]["error"]["desc"], "The command query-version does not support OOB")
        self.assertEqual(daemon.end(), 0)

    def memory_kib(self, daemon):
        status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def test_what_is_too_large_takes_no_memory(self):
        daemon = self.start()
        daemon.command("qmp_capabilities")
        before = self.memory_kib(daemon)
        piece = b"x" * (1 << 20)
        for opening, closing, pieces in ((b'"', b'"', 100), (b'{"execute": "', b'"}', 10), (b"", b"", 10)):
            daemon.socket.sendall(opening)
            for _ in range(pieces):
                daemon.socket.sendall(piece)
            daemon.socket.sendall(closing + b"\n")
            daemon.socket.sendall(b'{"execute": "query-jobs", "id": "sound"}\n')
            while (reply := daemon.read()).get("id") != "sound":
                self.assertEqual(reply["error"]["class"], "GenericError")
        self.assertLess(self.memory_kib(daemon) - before, 32 << 10)
        self.assertEqual(daemon.end(), 0)

    def test_nesting_ends_somewhere(self):
        daemon = self.start()
        daemon.command("qmp_capabilities")
        for opening in (b"[", b'{"a":', b'[{"a":'):
            self.assertEqual(daemon.ask(opening * 100000)["error"]["class"], "GenericError")
            daemon.socket.sendall(b'\x01\n{"execute": "query-jobs", "id": "sound"}\n')
            while (reply := daemon.read()).get("id") != "sound":
                self.assertEqual(reply["error"]["class"], "GenericError")
        self.assertEqual(daemon.end(), 0)

    def test_noise_is_answered_with_errors(self):
        daemon = self.start(*self.node)
        daemon.command("qmp_capabilities")
        chance = random.Random(1)
        for round in range(200):
            noise = bytes(chance.choice(b'{}[]:,"\'\\\n\x00\xff 0aetn-') for _ in range(chance.randrange(1, 400)))
            daemon.socket.sendall(noise + b'\n"]}\x01\n' + json.dumps({"execute": "query-jobs", "id": round}).encode() + b"\n"
                                  + json.dumps({"execute": "query-jobs", "id": f"again {round}"}).encode() + b"\n")
            while (reply := daemon.read()).get("id") != f"again {round}":
                self.assertTrue("error" in reply or reply["id"] == round, reply)
        self.assertEqual(daemon.end(), 0)
        self.assertTrue(self.is_sound())

    def test_monitors_at_pipes_and_files_and_ports(self):
        for name in ("p.in", "p.out"):
            os.mkfifo(self.directory / name)
        daemon = self.start("--chardev", "pipe,id=p,path=p", "--monitor", "p", "--chardev", "file,id=f,path=events.txt", "--monitor",
                            "f", "--chardev", "socket,id=t,host=127.0.0.1,port=0,server=on,wait=off", "--monitor", "t")
        daemon.command("qmp_capabilities")
        with open(self.directory / "p.out", "rb") as answers, open(self.directory / "p.in", "wb", buffering=0) as questions:
            self.assertIn("QMP", json.loads(answers.readline()))
            questions.write(b'{"execute": "qmp_capabilities"}')
            self.assertEqual(json.loads(answers.readline()), {"return": {}})
        names = {one["label"]: one["filename"] for one in daemon.command("query-chardev")["return"]}
        self.assertTrue(names["t"].startswith("disconnected:tcp:127.0.0.1:"), names)
        with socket.create_connection(("127.0.0.1", int(names["t"].split(":")[3].partition(",")[0])), TIMEOUT_S) as there:
            self.assertIn("QMP", json.loads(there.makefile("rb").readline()))
        self.assertEqual(daemon.end(), 0)
        self.assertIn("QMP", json.loads((self.directory / "events.txt").read_text()))

    def test_a_backing_file_gets_another_name(self):
        run(PLATTER, "create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2", "overlay.qcow2", cwd=self.directory, check=True)
        node = "driver=qcow2,node-name=o,file.driver=file,file.filename=overlay.qcow2"

        def recorded():
            shown = run(PLATTER, "info", "-U", "--output=json", "overlay.qcow2", cwd=self.directory)
            return json.loads(shown.stdout).get("backing-filename")

        for options, name in ((node, "./disk.qcow2"), (node + ",read-only=on", "disk.qcow2")):
            daemon = self.start("--blockdev", options)
            daemon.command("qmp_capabilities")
            changed = daemon.command("change-backing-file", device="o", image_node_name="o", backing_file=name)
            self.assertEqual(changed, {"return": {}})
            self.assertEqual(recorded(), name)
            shown = {one["node-name"]: one for one in daemon.command("query-named-block-nodes", flat=True)["return"]}
            self.assertEqual(shown["o"]["ro"], "read-only" in options)
            self.assertEqual(shown["o"]["image"]["backing-filename"], name)
            self.assertEqual(daemon.end(), 0)
            self.assertEqual(os.listdir(self.directory / "states"), [])
        self.assertEqual(run("qemu-img", "check", "-q", "overlay.qcow2", cwd=self.directory).returncode, 0)

    def test_a_key_of_the_kernels_opens_an_image(self):
        serial = add_key("platter-test", b"hush")
        if serial < 0:
            self.skipTest(f"the kernel keeps no key for this process: {os.strerror(ctypes.get_errno())}")
        run(PLATTER, "create", "-q", "--object", "secret,id=s,data=hush", "-f", "luks", "-o", "key-secret=s,iter-time=10",
            "locked.luks", "1M", cwd=self.directory, check=True)
        daemon = self.start("--object", f"secret_keyring,id=s,serial={serial}", "--blockdev",
                            "driver=luks,node-name=l,key-secret=s,file.driver=file,file.filename=locked.luks")
        self.assertEqual(daemon.end(), 0)

    def test_the_pid_file(self):
        path = self.directory / "pid"
        daemon = self.start("--pidfile", "pid")
        self.assertEqual(int(path.read_text()), daemon.process.pid)
        second = run(PLATTER, "daemon", "--pidfile", path, "--chardev", "null,id=n", "--monitor", "n")
        self.assertEqual(second.returncode, 1)
        self.assertEqual(second.stderr.decode(),
                         f"platter: cannot create PID file: Could not lock '{path}': process {daemon.process.pid} has it\n")
        self.assertEqual(daemon.end(), 0)
        self.assertFalse(path.exists())
        path.write_text("12 \n")  # left behind
        daemon = self.start("--pidfile", "pid")
        self.assertEqual(daemon.end(), 0)
        self.assertFalse(path.exists())

    def test_no_file_of_another_kind_becomes_the_pid_file(self):
        before = (self.directory / "disk.qcow2").read_bytes()
        done = run(PLATTER, "daemon", "--pidfile", "disk.qcow2", cwd=self.directory)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"disk.qcow2' is there, and is no PID file\n", done.stderr)
        self.assertEqual((self.directory / "disk.qcow2").read_bytes(), before)

    def test_the_background(self):
        words = (PLATTER, "daemon", "--daemonize", "--pidfile", "pid", "--state", "states", *self.node,
                 "--chardev", "socket,path=s,server=on,wait=off,id=m", "--monitor", "m",
                 "--nbd-server", "addr.type=unix,addr.path=n", "--export", "nbd,id=e,node-name=disk",
                 "--export", "vhost-user-blk,id=v,node-name=disk,addr.type=unix,addr.path=v")
        done = run(*words, cwd=self.directory)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        pid = int((self.directory / "pid").read_text())
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        os.kill(pid, signal.SIGTERM)
        until(lambda: gone(pid))
        self.assertEqual(sorted(os.listdir(self.directory)), ["disk.qcow2", "states"])
        self.assertEqual(os.listdir(self.directory / "states"), [])
        self.assertTrue(self.is_sound())
        failed = run(PLATTER, "daemon", "--daemonize", "--blockdev", "driver=qcow2,node-name=a,file=none",
                     cwd=self.directory)
        self.assertEqual(failed.returncode, 1)
        self.assertIn("Cannot find device='none'", failed.stderr.decode())

    def test_an_image_that_is_reopened_keeps_its_bitmaps(self):
        daemon = self.start(*self.node)
        daemon.command("qmp_capabilities")

        def reopen(**more):
            options = {"driver": "qcow2", "node-name": "disk", "file": {"driver": "file", "filename": "disk.qcow2"}, **more}
            return daemon.command("blockdev-reopen", options=[options])

        daemon.command("block-dirty-bitmap-add", node="disk", name="first", persistent=True)
        self.assertEqual(daemon.command("block_resize", node_name="disk", size=33554432), {"return": {}})
        self.assertEqual(reopen(**{"read-only": True}), {"return": {}})
        self.assertTrue(self.is_sound())
        self.assertEqual(reopen(**{"lazy-refcounts": True}), {"return": {}})
        daemon.command("block-dirty-bitmap-add", node="disk", name="second", persistent=True)
        self.assertEqual(daemon.command("block_resize", node_name="disk", size=67108864), {"return": {}})
        self.assertEqual(reopen(**{"read-only": True}), {"return": {}})
        described = json.loads(run(PLATTER, "info", "-U", "--output=json", self.directory / "disk.qcow2").stdout)
        bitmaps = described["format-specific"]["data"]["bitmaps"]
        self.assertEqual({bitmap["name"]: bitmap["flags"] for bitmap in bitmaps}, {"first": ["auto"], "second": ["auto"]})
        self.assertEqual(daemon.end(), 0)
        self.assertTrue(self.is_sound())

    def test_a_locked_image_is_refused(self):
        daemon = self.start(*self.node)
        second = run(PLATTER, "daemon", *self.node, cwd=self.directory)
        self.assertEqual(second.returncode, 1)
        self.assertIn('Failed to get "write" lock', second.stderr.decode())
        self.assertEqual(daemon.end(), 0)

    def test_what_an_image_may_name(self):
        outside = self.directory / "elsewhere"
        outside.mkdir()
        run(PLATTER, "create", "-f", "qcow2", outside / "base.qcow2", "1M", check=True)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", outside / "base.qcow2", "-F", "qcow2",
            self.directory / "sub.qcow2", check=True)
        (self.directory / "inner").mkdir()
        (self.directory / "sub.qcow2").rename(self.directory / "inner" / "sub.qcow2")
        node = ("--blockdev", "driver=qcow2,node-name=a,file.driver=file,file.filename=inner/sub.qcow2")
        self.assertEqual(run(PLATTER, "daemon", *node, cwd=self.directory).returncode, 1)
        daemon = self.start("--allow-backing", str(outside), *node)
        self.assertEqual(daemon.end(), 0)

    def test_an_export(self):
        daemon = self.start(*self.node, "--object", "iothread,id=io", "--export",
                            "vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path=disk.sock,writable=on,num-queues=2")
        daemon.command("qmp_capabilities")
        self.assertEqual(daemon.command("query-block-exports")["return"],
                         [{"id": "e", "type": "vhost-user-blk", "node-name": "disk", "shutting-down": False}])
        front_end = socket.socket(socket.AF_UNIX)
        front_end.settimeout(TIMEOUT_S)
        front_end.connect(str(self.directory / "disk.sock"))
        front_end.sendall(struct.pack("<III", 1, 1, 0))  # GET_FEATURES
        request, _, size, features = struct.unpack("<IIIQ", front_end.recv(20))
        self.assertEqual((request, size), (1, 8))
        self.assertTrue(features >> 32 & 1)  # VERSION_1
        self.assertEqual(daemon.command("block_resize", node_name="disk", size=33554432), {"return": {}})
        refused = daemon.command("block-export-del", id="e")
        self.assertEqual(refused["error"]["desc"], "export 'e' still in use")
        event = daemon.command("block-export-del", id="e", mode="hard")
        self.assertEqual((event["event"], event["data"]), ("BLOCK_EXPORT_DELETED", {"id": "e"}))
        self.assertEqual(daemon.read(), {"return": {}})
        self.assertEqual(front_end.recv(1), b"")
        front_end.close()
        self.assertFalse((self.directory / "disk.sock").exists())
        added = daemon.command("block-export-add", type="vhost-user-blk", id="f", node_name="disk", iothread="io",
                               addr={"type": "unix", "path": str(self.directory / "again.sock")})
        self.assertEqual(added, {"return": {}})
        self.assertEqual(daemon.end(), 0)
        self.assertFalse((self.directory / "again.sock").exists())
        self.assertTrue(self.is_sound())

    def test_bad_options(self):
        for words, expected in (
                (("--monitor", "x"), '--monitor x: chardev "x" not found'),
                (("--chardev", "nope,id=a"), "--chardev nope,id=a: 'nope' is not a valid char driver name"),
                (("--chardev", "null"), "--chardev null: chardev: no id specified"),
                (("--blockdev", "qcow2"), "--blockdev qcow2: Parameter 'file' is missing"),
                (("--object", "nope,id=a"), "--object nope,id=a: Parameter 'qom-type' does not accept value 'nope'"),
                (("x",), "x: Unexpected argument"),
                (("--chardev", "null,id=a", "--monitor", "a,mode=readline"),
                 "--monitor a,mode=readline: Only QMP is supported"),
                (("--chardev", "null,id=a", "--monitor", "a", "--monitor", "a"), "--monitor a: Device 'a' is in use"),
                (("--export", "nope,id=a,node-name=x"),
                 "--export nope,id=a,node-name=x: Parameter 'type' does not accept value 'nope'"),
                (("--daemonize", "--chardev", "stdio,id=a"),
                 "--chardev stdio,id=a: cannot use stdio with -daemonize"),
                (("--slow", "0"), "--slow 0: Expecting a number of milliseconds from 1 to 3600000, not '0'"),
                (("--slow", "1s"), "--slow 1s: Expecting a number of milliseconds from 1 to 3600000, not '1s'"),
                (("--foo",), "unrecognized option '--foo'"),
                (("--blockdev",), "option '--blockdev' requires an argument")):
            done = run(COMPAT, *words, cwd=self.directory, stdin=subprocess.DEVNULL)
            self.assertEqual((done.returncode, done.stderr.decode()), (1, f"qemu-storage-daemon: {expected}\n"))
            self.assertEqual(done.stdout, b"")

    def test_two_monitors_hear_the_same_daemon(self):
        daemon = self.start(*self.node, "--chardev", "socket,path=second.sock,server=on,wait=off,id=s",
                            "--monitor", "s,pretty=on")
        daemon.command("qmp_capabilities")
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(TIMEOUT_S)
        raw.connect(str(self.directory / "second.sock"))
        greeting = raw.recv(65536).decode()
        self.assertIn('\n    "QMP": {\n', greeting)
        raw.close()
        self.assertEqual(daemon.end(), 0)


if __name__ == "__main__":
    # A shell has what it starts in the background ignore it, and so would the daemons.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main()
