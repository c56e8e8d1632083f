#!/usr/bin/env python3
"""Exports of the daemon's NBD server, used by libnbd's programs, QEMU's and fio, and by clients that mean no good."""

import json
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import unittest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "qmp")]
import client  # noqa: E402
import raw_client  # noqa: E402
from raw_client import RawClient  # noqa: E402
from scratch import MIB, Scratch, run, wait_until, wait_until_unlocked  # noqa: E402

PLATTER = None
HOLE = 3  # and zero, in base:allocation


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class NbdTest(Scratch):
    MEMORY_MIB = 512

    def serve(self, *arguments, server="addr.type=unix,addr.path=nbd.sock", **options):
        """A daemon, after `arguments`, with its server; its monitor has been greeted."""
        program = self.directory / "daemon"
        program.write_text(f"#!/bin/sh\nexec {PLATTER} daemon --state {self.directory} \"$@\"\n")
        program.chmod(0o755)
        words = ("--nbd-server", server, *arguments) if server else arguments
        with open("said", "w") as said:
            daemon = client.SocketClient(str(program), self.directory, words, stderr=said)
        self.addCleanup(daemon.process.wait)
        self.addCleanup(daemon.process.kill)
        self.addCleanup(daemon.hang_up)
        self.assertEqual(daemon.command("qmp_capabilities"), {"return": {}})
        return daemon

    def end(self, daemon, how=signal.SIGTERM):
        daemon.process.send_signal(how)
        self.assertEqual(daemon.process.wait(30), 0, pathlib.Path("said").read_text())
        self.assertFalse(os.path.exists("nbd.sock"))

    def serve_image(self, name="disk.qcow2", size="64M", export="writable=on", node="discard=unmap"):
        if not os.path.exists(name):
            run("qemu-img", "create", "-q", "-f", "qcow2", name, size)
        return self.serve("--blockdev", f"driver=qcow2,node-name=disk,{node},file.driver=file,file.filename={name}",
                          "--export", f"type=nbd,id=e,node-name=disk,{export}")

    def uri(self, name="disk"):
        return f"nbd+unix:///{name}?socket={self.directory}/nbd.sock"

    def data(self, size, seed=1):
        return random.Random(seed).randbytes(size)

    def extents(self, context="base:allocation", name="disk"):
        said = json.loads(run("nbdinfo", "--json", f"--map={context}", self.uri(name)).stdout)
        return [(one["offset"], one["length"], one["type"]) for one in said]

    # ---- What is told

    def test_exports_are_listed_with_all_that_is_known_of_them(self):
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "3M")
        self.serve("--blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2",
                   "--blockdev", "driver=null-co,node-name=null,size=1073741824,read-only=on",
                   "--export", "type=nbd,id=a,node-name=disk,description=the first,writable=on,allocation-depth=on",
                   "--export", "type=nbd,id=b,node-name=null,name=nothing")
        said = json.loads(run("nbdinfo", "--json", "--list", self.uri("")).stdout)
        self.assertEqual((said["protocol"], said["TLS"], said["structured"]), ("newstyle-fixed", False, True))
        disk, null = said["exports"]
        self.assertEqual((disk["export-name"], disk["description"], disk["export-size"]), ("disk", "the first", 3 * MIB))
        self.assertEqual(disk["contexts"], ["base:allocation", "qemu:allocation-depth"])
        self.assertEqual((null["export-name"], null["export-size"], null["is_read_only"]), ("nothing", 1 << 30, True))
        for fact in ("can_cache", "can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"):
            self.assertTrue(disk[fact], fact)
        self.assertFalse(null["can_trim"] or null["can_zero"])
        self.assertEqual([disk[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")], [1, 4096, 32 * MIB])
        self.assertIn("exports available: 2", run("qemu-nbd", "--list", "-k", str(self.directory / "nbd.sock")).stdout)
        self.assertIn("export 'nope' not present", run("qemu-img", "info", self.uri("nope"), status=1).stderr)

    def test_what_is_allocated_is_told_as_the_image_has_it(self):
        run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "8M")
        run("qemu-io", "-c", "write 1M 1M", "base.qcow2")
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")
        run("qemu-io", "-c", "write 4M 64k", "-c", "write -z 6M 1M", "disk.qcow2")
        self.serve_image(export="allocation-depth=on")
        self.assertEqual(self.extents(), [(0, MIB, HOLE), (MIB, MIB, 0), (2 * MIB, 2 * MIB, HOLE), (4 * MIB, 65536, 0),
                                          (4 * MIB + 65536, 4 * MIB - 65536, HOLE)])
        self.assertEqual(self.extents("qemu:allocation-depth"),
                         [(0, MIB, 0), (MIB, MIB, 2), (2 * MIB, 2 * MIB, 0), (4 * MIB, 65536, 1),
                          (4 * MIB + 65536, 2 * MIB - 65536, 0), (6 * MIB, MIB, 1), (7 * MIB, MIB, 0)])
        self.assertIn("Images are identical", run("qemu-img", "compare", "-U", self.uri(), "disk.qcow2").stdout)

    def test_bitmaps_are_told_and_held(self):
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "8M")
        run("qemu-img", "bitmap", "--add", "disk.qcow2", "kept")
        run("qemu-io", "-c", "write 1M 200k", "disk.qcow2")
        run("qemu-img", "bitmap", "--disable", "disk.qcow2", "kept")
        daemon = self.serve_image(export="bitmaps.0=kept")
        self.assertEqual(self.extents("qemu:dirty-bitmap:kept"), [(0, MIB, 0), (MIB, 4 * 65536, 1), (MIB + 4 * 65536, 7 * MIB - 4 * 65536, 0)])
        options = {"driver": "nbd", "server": {"type": "unix", "path": "nbd.sock"}, "export": "disk",
                   "x-dirty-bitmap": "qemu:dirty-bitmap:kept"}
        said = json.loads(run("qemu-img", "map", "--output=json", f"json:{json.dumps(options)}").stdout)
        self.assertEqual([(one["start"], one["length"]) for one in said if not one["data"]], [(MIB, 4 * 65536)])
        held = {"error": {"class": "GenericError",
                          "desc": "Bitmap 'kept' is currently in use by another operation and cannot be used"}}
        self.assertEqual(daemon.command("block-dirty-bitmap-remove", node="disk", name="kept"), held)
        self.assertEqual(daemon.command("block-export-del", id="e")["event"], "BLOCK_EXPORT_DELETED")
        self.assertEqual(daemon.read(), {"return": {}})
        self.assertEqual(daemon.command("block-dirty-bitmap-remove", node="disk", name="kept"), {"return": {}})
        self.end(daemon)

    # ---- What is moved

    def test_nbdcopy_moves_an_image_both_ways(self):
        data = self.data(3 * MIB)
        self.make("in.raw", [(5 * MIB, data), (40 * MIB + 512, data[:100000]), (64 * MIB - 512, data[:512])], 64 * MIB)
        daemon = self.serve_image()
        run("nbdcopy", "--connections=4", "in.raw", self.uri())
        run("nbdcopy", "--connections=4", "--flush", self.uri(), "out.raw")
        self.assertEqual(pathlib.Path("in.raw").read_bytes(), pathlib.Path("out.raw").read_bytes())
        self.assertLess(os.stat("out.raw").st_blocks * 512, 8 * MIB)  # holes stay holes
        self.end(daemon)
        run("qemu-img", "check", "disk.qcow2")
        self.assertIn("identical", run("qemu-img", "compare", "in.raw", "disk.qcow2").stdout)
        self.assertLess(os.stat("disk.qcow2").st_size, 8 * MIB)

    def test_qemu_img_converts_from_an_export_and_to_one(self):
        self.make("in.raw", [(MIB, self.data(2 * MIB))], 16 * MIB)
        daemon = self.serve_image(size="16M")
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "in.raw", self.uri())
        run("qemu-img", "convert", "-O", "qcow2", self.uri(), "out.qcow2")
        self.assertIn("identical", run("qemu-img", "compare", "in.raw", "out.qcow2").stdout)
        said = json.loads(run("qemu-img", "map", "--output=json", "out.qcow2").stdout)
        self.assertEqual([(one["start"], one["length"]) for one in said if one["data"]], [(MIB, 2 * MIB)])
        self.end(daemon)
        self.assertIn("identical", run("qemu-img", "compare", "in.raw", "disk.qcow2").stdout)

    def test_requests_of_every_kind_do_what_they_say(self):
        daemon = self.serve_image(size="8M")
        said = run("qemu-io", "-f", "raw", "-c", "write -P 1 0 1M", "-c", "write -f -P 2 4097 10000", "-c", "write -z 64k 64k",
                   "-c", "write -z -u 256k 128k", "-c", "discard 512k 128k", "-c", "flush", "-c", "read -P 1 0 4097",
                   "-c", "read -P 2 4097 10000", "-c", "read -P 0 64k 64k", "-c", "read -P 0 256k 128k",
                   "-c", "write -P 3 8388000 608", "-c", "read -P 3 8388000 608", self.uri()).stdout
        self.assertNotIn("failed", said)
        self.end(daemon)
        said = run("qemu-io", "-c", "read -P 2 4097 10000", "-c", "read -P 0 256k 128k", "-c", "map", "disk.qcow2").stdout
        self.assertNotIn("failed", said)

    def test_fio_finds_what_it_has_written(self):
        daemon = self.serve_image(size="32M")
        run("fio", "--name=verify", "--ioengine=nbd", f"--uri={self.uri()}", "--rw=randrw", "--bsrange=512-256k", "--iodepth=64",
            "--size=32M", "--verify=crc32c", "--minimal")
        self.end(daemon)
        run("qemu-img", "check", "disk.qcow2")

    def test_a_file_system_arrives_sound(self):
        os.mkdir("tree")
        for number in range(200):
            pathlib.Path(f"tree/{number}").write_bytes(self.data(random.Random(number).randrange(20000), number))
        run("mke2fs", "-q", "-F", "-t", "ext4", "-d", "tree", "fs.raw", "32M")
        daemon = self.serve_image(size="32M")
        run("nbdcopy", "fs.raw", self.uri())
        self.end(daemon, signal.SIGINT)
        run("qemu-img", "convert", "-O", "raw", "disk.qcow2", "back.raw")
        run("e2fsck", "-fn", "back.raw")

    # ---- Where it listens

    def test_a_port_and_the_next_one_where_it_is_taken(self):
        port = free_port()
        address = "addr.type=inet,addr.host=127.0.0.1,addr.port={},addr.to={}"
        null = ("--blockdev", "driver=null-co,node-name=disk,size=1048576", "--export", "type=nbd,id=e,node-name=disk")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", port))
            taken.listen()
            self.serve(*null, server=address.format(port, port + 20))
            heard = [run("nbdinfo", "--size", f"nbd://127.0.0.1:{one}/disk", status=None).stdout for one in range(port + 1, port + 21)]
        self.assertIn(f"{MIB}\n", heard)

    def test_a_socket_that_is_passed(self):
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("passed.sock")
            listening.listen()
            process = subprocess.Popen(
                [PLATTER, "daemon", "--blockdev", "driver=null-co,node-name=disk,size=1048576", "--nbd-server",
                 f"addr.type=fd,addr.str={listening.fileno()}", "--export", "type=nbd,id=e,node-name=disk"],
                pass_fds=[listening.fileno()])
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            self.assertEqual(run("nbdinfo", "--size", f"nbd+unix:///disk?socket={self.directory}/passed.sock").stdout, f"{MIB}\n")
            process.terminate()
            self.assertEqual(process.wait(30), 0)
        self.assertTrue(os.path.exists("passed.sock"))  # its maker's to remove

    def test_a_file_that_is_no_socket_is_left_alone(self):
        pathlib.Path("precious").write_text("data")
        ended = run(PLATTER, "daemon", "--nbd-server", "addr.type=unix,addr.path=precious", status=1)
        self.assertEqual(ended.stderr, "platter: --nbd-server addr.type=unix,addr.path=precious: Failed to bind socket to precious: "
                         "Address already in use\n")
        self.assertEqual(pathlib.Path("precious").read_text(), "data")

    # ---- The server and its exports, by QMP

    def test_the_server_comes_and_goes(self):
        daemon = self.serve("--blockdev", "driver=null-co,node-name=disk,size=1048576", server=None)
        address = {"type": "unix", "data": {"path": "nbd.sock"}}
        for _ in range(3):
            self.assertEqual(daemon.command("nbd-server-start", addr=address, max_connections=2), {"return": {}})
            self.assertEqual(daemon.command("block-export-add", type="nbd", id="e", node_name="disk"), {"return": {}})
            self.assertEqual(run("nbdinfo", "--size", self.uri()).stdout, f"{MIB}\n")
            connected = RawClient("nbd.sock")
            connected.go("disk")
            refused = daemon.command("block-export-del", id="e")
            self.assertEqual(refused["error"]["desc"], "export 'e' still in use")
            self.assertEqual(daemon.command("nbd-server-stop")["event"], "BLOCK_EXPORT_DELETED")
            self.assertEqual(daemon.read(), {"return": {}})
            self.assertRaises((EOFError, ConnectionResetError), connected.hear, 1)
            connected.close()
            self.assertFalse(os.path.exists("nbd.sock"))

    def test_a_disk_that_is_exported_keeps_its_size(self):
        daemon = self.serve_image()
        refused = daemon.command("block_resize", node_name="disk", size=128 * MIB)
        self.assertIn("permissions 'resize' are both required", refused["error"]["desc"])

    def test_a_write_through_one_connection_is_seen_and_flushed_through_another(self):
        daemon = self.serve_image()
        one, other = RawClient("nbd.sock"), RawClient("nbd.sock")
        one.go("disk")
        other.go("disk")
        one.request(raw_client.WRITE, MIB, 512, payload=b"w" * 512)
        self.assertEqual(one.simple_reply(), 0)
        other.request(raw_client.FLUSH)
        self.assertEqual(other.simple_reply(), 0)
        other.request(raw_client.READ, MIB, 512)
        self.assertEqual((other.simple_reply(), other.hear(512)), (0, b"w" * 512))
        daemon.process.kill()
        daemon.process.wait()
        wait_until_unlocked("disk.qcow2")
        # What was flushed does not depend on the process.
        for left in self.directory.glob("*/*"):
            left.unlink()
        self.assertNotIn("failed", run("qemu-io", "-c", f"read -P {ord('w')} 1M 512", "disk.qcow2").stdout)

    # ---- Clients that go, or mean no good

    def test_clients_that_are_killed_leave_nothing(self):
        daemon = self.serve_image()
        for seed in range(10):
            fio = subprocess.Popen(["fio", "--name=load", "--ioengine=nbd", f"--uri={self.uri()}", "--rw=randrw", "--bs=64k",
                                    "--iodepth=32", "--size=64M", "--time_based", "--runtime=60"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
            before = self.written(daemon)
            wait_until(lambda: self.written(daemon) > before + seed * 100000)
            fio.kill()
            fio.wait()
            if seed != 9:
                self.assertEqual(run("nbdinfo", "--size", self.uri()).stdout, f"{64 * MIB}\n")
        self.end(daemon)
        run("qemu-img", "check", "disk.qcow2")

    def test_the_end_comes_while_a_client_writes(self):
        daemon = self.serve_image()
        fio = subprocess.Popen(["fio", "--name=load", "--ioengine=nbd", f"--uri={self.uri()}", "--rw=randwrite", "--bs=64k",
                                "--iodepth=32", "--size=64M", "--time_based", "--runtime=60"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
        self.addCleanup(fio.wait)
        self.addCleanup(fio.kill)
        wait_until(lambda: self.written(daemon) > 4 * MIB)
        self.end(daemon)
        run("qemu-img", "check", "disk.qcow2")

    def written(self, daemon):
        return daemon.command("query-blockstats", query_nodes=True)["return"][0]["stats"]["wr_bytes"]

    def test_clients_that_say_nothing_sensible_harm_nobody(self):
        daemon = self.serve_image()
        noise = random.Random(3)
        for _ in range(60):
            with socket.socket(socket.AF_UNIX) as bad:
                bad.connect("nbd.sock")
                bad.sendall(struct.pack(">I", 3) * noise.randrange(2))
                bad.sendall(b"IHAVEOPT" * noise.randrange(2) + noise.randbytes(noise.randrange(400)))
        client_of_ours = RawClient("nbd.sock")
        client_of_ours.go("disk")
        client_of_ours.say(b"no request at all, but long enough to be taken for one")
        self.assertRaises((EOFError, ConnectionResetError), client_of_ours.hear, 1)
        self.assertIn("identical", run("qemu-img", "compare", "-U", self.uri(), "disk.qcow2").stdout)
        self.end(daemon)
        self.assertIn("nbd: a client was left: a request that begins with 0x6e6f2072", pathlib.Path("said").read_text())

    def test_a_client_that_does_not_choose_is_left(self):
        self.serve("--blockdev", "driver=null-co,node-name=disk,size=1048576", "--export", "type=nbd,id=e,node-name=disk",
                   server="addr.type=unix,addr.path=nbd.sock,handshake-max-seconds=1,max-connections=1")
        silent = RawClient("nbd.sock")
        self.assertRaises((EOFError, ConnectionResetError), silent.hear, 1)
        self.assertEqual(run("nbdinfo", "--size", self.uri()).stdout, f"{MIB}\n")
        self.assertIn("had not chosen an export in 1 s", pathlib.Path("said").read_text())

    # ---- What no client in Debian 12 can say

    def test_extended_headers(self):
        daemon = self.serve("--blockdev", "driver=null-co,node-name=disk,size=8796093022208,read-zeroes=on", "--export",
                            "type=nbd,id=e,node-name=disk,writable=on,allocation-depth=on")
        one = RawClient("nbd.sock")
        one.extend()
        ids = one.set_contexts("disk", "base:allocation", "qemu:allocation-depth")
        self.assertEqual(ids, {"base:allocation": 0, "qemu:allocation-depth": 1})
        one.go("disk")
        # More than 4 GiB at once.
        one.request(raw_client.STATUS, 1 << 40, 5 << 40)
        told = [one.extended_chunk(1 << 40) for _ in range(2)]
        self.assertEqual([(last, kind) for last, kind, _ in told],
                         [(False, raw_client.CHUNK_STATUS_EXTENDED), (True, raw_client.CHUNK_STATUS_EXTENDED)])
        self.assertEqual(struct.unpack(">IIQQ", told[0][2])[:3], (0, 1, 5 << 40))
        one.request(raw_client.STATUS, 0, 12, raw_client.PAYLOAD, struct.pack(">QI", 4096, 1))
        last, kind, payload = one.extended_chunk(0)
        self.assertEqual((last, kind, struct.unpack(">IIQ", payload[:16])), (True, raw_client.CHUNK_STATUS_EXTENDED, (1, 1, 4096)))
        one.request(raw_client.ZEROES, 0, 6 << 40)
        self.assertEqual(one.extended_chunk(0), (True, raw_client.CHUNK_NONE, b""))
        one.request(raw_client.READ, 8192, 4096)
        last, kind, payload = one.extended_chunk(8192)
        self.assertEqual((last, kind, payload), (True, raw_client.CHUNK_DATA, struct.pack(">Q", 8192) + bytes(4096)))
        one.request(raw_client.DISC)
        self.assertRaises((EOFError, ConnectionResetError), one.hear, 1)
        self.end(daemon)


if __name__ == "__main__":
    PLATTER = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
