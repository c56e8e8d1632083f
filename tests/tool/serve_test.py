#!/usr/bin/env python3
"""`platter serve` as whoever starts it meets it.

usage: serve_test.py PLATTER
"""

import contextlib
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import scratch
from scratch import run

PLATTER = str(pathlib.Path(sys.argv.pop(1)).resolve())
LIMIT_S = 60
GET_FEATURES = struct.pack("<III", 1, 1, 0)


@contextlib.contextmanager
def killed_by_a_failure(process):
    """A test that fails must not wait for a process that nobody ends."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


class ServeTest(scratch.Scratch):
    def setUp(self):
        super().setUp()
        run(PLATTER, "create", "-q", "-f", "qcow2", "disk.qcow2", "64M")

    @contextlib.contextmanager
    def activated(self, count, *words, descriptor):
        """As a service manager starts it: with a socket as descriptor 3, and its own number."""
        script = f'exec 3<&{descriptor}; exec env LISTEN_PID=$$ LISTEN_FDS={count} "$@"'
        with subprocess.Popen(["sh", "-c", script, "sh", PLATTER, "serve", *words], pass_fds=[descriptor],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as served:
            with killed_by_a_failure(served):
                yield served

    def features_at(self, path):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(LIMIT_S)
            peer.connect(path)
            peer.sendall(GET_FEATURES)
            reply = peer.recv(20, socket.MSG_WAITALL)
            return struct.unpack("<IIIQ", reply)

    def test_a_socket_that_a_service_manager_listens_at(self):
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("sock")
            listening.listen()
            with self.activated(1, "disk.qcow2", "-q", descriptor=listening.fileno()) as served:
                for _ in range(2):
                    request, flags, size, features = self.features_at("sock")
                    self.assertEqual((request, flags, size), (1, 5, 8))
                    self.assertNotEqual(features & 1 << 30, 0)
                served.send_signal(signal.SIGTERM)
                self.assertEqual(served.communicate(timeout=LIMIT_S), ("", ""))
            self.assertEqual(served.returncode, 0)
            self.assertTrue(os.path.exists("sock"), "it was not ours to remove")

    def test_sockets_that_it_cannot_serve(self):
        for kind, count, words, why in (
                (socket.AF_UNIX, 2, (), "has passed 2 sockets, and one is served"),
                (socket.AF_INET, 1, (), "is no UNIX socket that listens"),
                (socket.AF_UNIX, 1, ("--vhost-user", "other"), "--vhost-user does not go with")):
            with self.subTest(why), socket.socket(kind) as listening:
                listening.bind("s" + str(count) + str(len(words)) if kind == socket.AF_UNIX else ("127.0.0.1", 0))
                listening.listen()
                with self.activated(count, "disk.qcow2", *words, descriptor=listening.fileno()) as served:
                    out, err = served.communicate(timeout=LIMIT_S)
                self.assertEqual((served.returncode, out, err.count("\n")), (1, "", 1), err)
                self.assertIn(why, err)

    def test_no_socket(self):
        done = run(PLATTER, "serve", "disk.qcow2", status=1)
        self.assertIn("Expecting --vhost-user SOCKET", done.stderr)

    def test_policies_that_are_none(self):
        for option, value, known in (("--werror", "perhaps", "report, ignore, stop, enospc or auto"),
                                     ("--rerror", "enospc", "report, ignore, stop or auto")):
            done = run(PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", option, value, status=1)
            self.assertEqual(done.stderr, f"platter: {option} is {known}, not '{value}'\n")
            self.assertFalse(os.path.exists("s"))

    def test_told_to_go_on_where_nothing_has_stopped(self):
        with self.serving() as served:
            served.send_signal(signal.SIGUSR2)
            self.features_at("s")
            served.terminate()
        self.assertEqual(served.returncode, 0)

    def test_where_state_is_kept(self):
        pathlib.Path("file").touch()
        done = run(PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", "--state", "file", status=1)
        self.assertIn(f"'{os.getcwd()}/file' is no directory that this user alone writes to", done.stderr)
        self.assertFalse(os.path.exists("s"))
        done = run(PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", "--state", "no/where", status=1)
        self.assertIn(f"Could not make directory '{os.getcwd()}/no/where': No such file or directory", done.stderr)
        done = run(PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", "--state", "", status=1)
        self.assertEqual(done.stderr, "platter: --state is a directory or none, not ''\n")

    def test_where_state_is_kept_unless_it_is_said(self):
        with self.serving(states=()) as served:
            opened = [os.readlink(f"/proc/{served.pid}/fd/{number}") for number in os.listdir(f"/proc/{served.pid}/fd")]
            served.terminate()
        kept = [name for name in opened if name.startswith(f"/dev/shm/platter-{os.geteuid()}/disk.qcow2-")]
        self.assertEqual((served.returncode, len(kept), os.path.exists(kept[0])), (0, 1, False))

    def test_who_ends_it_may_say_so_twice(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            for _ in range(5):
                with self.serving() as served:
                    for _ in range(3):
                        served.send_signal(number)
                self.assertEqual((served.returncode, os.listdir("states"), os.path.exists("s")), (0, [], False))

    def test_no_descriptor_of_ours_takes_the_place_of_a_closed_one(self):
        def close_all():
            for standard in (0, 1, 2):
                os.close(standard)

        with subprocess.Popen([PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", "--state", "none"],
                              preexec_fn=close_all) as served:
            with killed_by_a_failure(served):
                scratch.wait_until(lambda: os.path.exists("s"))
                taken = [os.readlink(f"/proc/{served.pid}/fd/{standard}") for standard in (0, 1, 2)]
                served.terminate()
        self.assertEqual((taken, served.returncode), (["/dev/null"] * 3, 1))
        done = run("sh", "-c", f"exec {PLATTER} info disk.qcow2 >&-", status=1)
        self.assertEqual(done.stderr, "platter: Could not write to standard output: Bad file descriptor\n")

    def test_it_waits_for_the_locks_of_one_that_was_killed(self):
        for _ in range(5):
            with self.serving() as served:
                self.features_at("s")
                served.kill()
        with self.serving() as served:
            self.assertEqual(len(os.listdir("states")), 1)
            served.terminate()
        self.assertEqual((served.returncode, os.listdir("states")), (0, []))

    def test_a_signal_ends_the_wait_for_locks(self):
        with self.serving() as served:
            words = [PLATTER, "serve", "disk.qcow2", "--vhost-user", "other", "--state", "states"]
            with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
                with killed_by_a_failure(second):
                    reactors = f"/proc/{second.pid}/task"
                    scratch.wait_until(lambda: len(os.listdir(reactors)) > 2)
                    second.terminate()
                    said = second.communicate(timeout=LIMIT_S)
            # Before it has begun to wait the signal has its usual effect.
            self.assertIn(second.returncode, (0, -signal.SIGTERM))
            self.assertEqual(said, ("", ""))
            served.terminate()

    def test_a_socket_whose_listener_has_ended_is_left_over(self):
        for reaped_before in (True, False):
            with socket.socket(socket.AF_UNIX) as kept:  # as the system keeps it for one that was killed
                kept.bind("s")
                listener = os.fork()
                if listener == 0:
                    kept.listen()
                    os._exit(0)
                os.waitid(os.P_PID, listener, os.WEXITED | (0 if reaped_before else os.WNOWAIT))
                with self.serving() as served:
                    served.terminate()
                self.assertEqual(served.returncode, 0)
                if not reaped_before:
                    os.waitpid(listener, 0)

    def test_a_socket_that_somebody_listens_at_stays(self):
        with socket.socket(socket.AF_UNIX) as taken:
            taken.bind("s")
            taken.listen()
            done = run(PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", status=1)
            self.assertIn("Could not listen at 's': Address already in use", done.stderr)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("s")
        os.unlink("s")

    @contextlib.contextmanager
    def serving(self, states=("--state", "states")):
        """A process that serves disk.qcow2 at s, from when it says so: a connection alone may be to the socket of one that was
        killed, which the system keeps for an instant."""
        words = [PLATTER, "serve", "disk.qcow2", "--vhost-user", "s", *states]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as served:
            with killed_by_a_failure(served):
                self.assertIn("served at s,", served.stdout.readline())
                yield served


if __name__ == "__main__":
    unittest.main()
