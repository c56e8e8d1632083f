#!/usr/bin/env python3
"""The NBD server under TLS: who may come in, as libnbd's programs and QEMU's find it."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import unittest

TESTS = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / "qmp")]
from raw_client import GO, RawClient  # noqa: E402
from scratch import MIB, Scratch, run, wait_until  # noqa: E402

PLATTER = None
TLS_REQUIRED = 0x80000005


def make_authority(directory, name):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", directory / f"{name}.key", "-out", directory / f"{name}.pem")


def make_certificate(directory, authority, kind, target, common_name):
    """DIRECTORY/TARGET/{ca-cert,KIND-cert,KIND-key}.pem."""
    at = directory / target
    at.mkdir()
    (at / "ca-cert.pem").write_bytes((directory / f"{authority}.pem").read_bytes())
    (at / "extensions").write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nkeyUsage=critical,digitalSignature\n"
                                   f"extendedKeyUsage={kind}Auth\nbasicConstraints=critical,CA:FALSE\n")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/O=Example/CN={common_name}",
        "-keyout", at / f"{kind}-key.pem", "-out", at / "request")
    run("openssl", "x509", "-req", "-in", at / "request", "-CA", directory / f"{authority}.pem", "-CAkey", directory / f"{authority}.key",
        "-CAcreateserial", "-days", "1", "-extfile", at / "extensions", "-out", at / f"{kind}-cert.pem")


class TlsTest(Scratch):
    def setUp(self):
        super().setUp()
        for authority in ("ca", "stranger"):
            make_authority(self.directory, authority)
        make_certificate(self.directory, "ca", "server", "server", "localhost")
        make_certificate(self.directory, "ca", "client", "alice", "alice")
        make_certificate(self.directory, "ca", "client", "mallory", "mallory")
        make_certificate(self.directory, "stranger", "client", "outsider", "alice")
        # Trusts the server, and comes from elsewhere.
        (self.directory / "outsider/ca-cert.pem").write_bytes((self.directory / "ca.pem").read_bytes())
        run("qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "16M")

    def serve(self, *objects, server):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [word for one in objects for word in ("--object", one)]
        with open("said", "w") as said:
            self.daemon = subprocess.Popen(
                [PLATTER, "daemon", "--state", self.directory, *words, "--blockdev",
                 "driver=qcow2,node-name=disk,file.driver=file,file.filename=disk.qcow2",
                 "--nbd-server", f"addr.type=inet,addr.host=127.0.0.1,addr.port={self.port},{server}",
                 "--export", "type=nbd,id=e,node-name=disk,writable=on"], stderr=said)
        self.addCleanup(self.daemon.wait)
        self.addCleanup(self.daemon.kill)

        def listens():
            self.assertIsNone(self.daemon.poll(), pathlib.Path("said").read_text())
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        wait_until(listens)

    def info(self, certificates, status=0, who="localhost"):
        return run("nbdinfo", "--json", f"nbds://{who}:{self.port}/disk?tls-certificates={self.directory}/{certificates}", status=status)

    def end(self):
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(30), 0)

    def test_certificates(self):
        self.serve("tls-creds-x509,id=t,endpoint=server,dir=server,verify-peer=on", server="tls-creds=t")
        told = json.loads(self.info("alice").stdout)
        self.assertEqual((told["TLS"], told["exports"][0]["export-size"]), (True, 16 * MIB))
        self.assertNotEqual(self.info("outsider", status=None).returncode, 0)
        self.assertNotEqual(run("nbdinfo", f"nbd://127.0.0.1:{self.port}/disk", status=None).returncode, 0)
        self.make("in.raw", [(MIB, os.urandom(5 * MIB))], 16 * MIB)
        uri = f"nbds://localhost:{self.port}/disk?tls-certificates={self.directory}/alice"
        run("nbdcopy", "--connections=4", "in.raw", uri)
        run("nbdcopy", uri, "out.raw")
        self.assertEqual(pathlib.Path("in.raw").read_bytes(), pathlib.Path("out.raw").read_bytes())
        node = f"driver=nbd,server.type=inet,server.host=localhost,server.port={self.port},export=disk,tls-creds=c"
        said = run("qemu-img", "compare", "-U", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={self.directory}/alice",
                   "--image-opts", node, "driver=raw,file.driver=file,file.filename=in.raw").stdout
        self.assertIn("Images are identical", said)
        self.end()
        self.assertIn("identical", run("qemu-img", "compare", "in.raw", "disk.qcow2").stdout)

    def test_only_who_is_authorised_comes_in(self):
        self.serve("tls-creds-x509,id=t,endpoint=server,dir=server", "authz-list,id=who,rules.0.match=O=Example,,CN=ali*,"
                   "rules.0.policy=allow,rules.0.format=glob", server="tls-creds=t,tls-authz=who")
        self.info("alice")
        self.assertNotEqual(self.info("mallory", status=None).returncode, 0)
        wait_until(lambda: "access is denied to 'O=Example,CN=mallory'" in pathlib.Path("said").read_text())
        self.end()

    def test_an_authorisation_that_is_not_there_denies(self):
        self.serve("tls-creds-x509,id=t,endpoint=server,dir=server", server="tls-creds=t,tls-authz=nobody")
        self.assertNotEqual(self.info("alice", status=None).returncode, 0)
        self.end()

    def test_without_tls_nothing_is_said(self):
        self.serve("tls-creds-x509,id=t,endpoint=server,dir=server", server="tls-creds=t,max-connections=7")

        class Plain(RawClient):
            def __init__(self, port):
                self.socket = socket.create_connection(("127.0.0.1", port), 30)
                self.extended = False
                self.hear(18)
                self.say(b"\0\0\0\3")
        plain = Plain(self.port)
        self.assertEqual(plain.option(GO, b"\0\0\0\4disk\0\0")[0][0], TLS_REQUIRED)
        plain.say(b"IHAVEOPT\0\0\0\5\0\0\0\0")
        plain.hear(20)
        plain.say(b"this is no hello of TLS" * 10)
        with self.assertRaises((EOFError, ConnectionResetError)):
            plain.hear(4096)  # an alert, and the end
        self.info("alice")
        self.end()

    def test_shared_keys(self):
        os.mkdir("keys")
        pathlib.Path("keys/keys.psk").write_text("alice:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n")
        pathlib.Path("wrong.psk").write_text("alice:ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n")
        self.serve("tls-creds-psk,id=t,endpoint=server,dir=keys", server="tls-creds=t")
        uri = f"nbds://alice@localhost:{self.port}/disk?tls-psk-file={self.directory}/"
        self.assertEqual(run("nbdinfo", "--size", uri + "keys/keys.psk").stdout, f"{16 * MIB}\n")
        self.assertNotEqual(run("nbdinfo", "--size", uri + "wrong.psk", status=None).returncode, 0)
        self.end()


if __name__ == "__main__":
    PLATTER = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main()
