#!/usr/bin/env python3
"""Command lines, right and wrong, given to the reference daemon and to ours: exit status and every word on stderr are the
same, or the difference has a name here. Both have a monitor on standard input, which says quit."""

import argparse
import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile

TIMEOUT_S = 60
QUIT = b'{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
PROGRAM = "qemu-storage-daemon"
MONITOR = ("--chardev", "stdio,id=m", "--monitor", "m")

WORDS = "words"
ONE_LINE = "one line says it"
NOT_HERE = "a kind that is not here"
STRICT = "what has no meaning is refused"

NODE = ("--blockdev", "driver=qcow2,node-name=q,file.driver=file,file.filename=disk.qcow2")
NULL = ("--blockdev", "driver=null-co,node-name=n,size=1048576")
EXPORT = "vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=x.sock"
NBD = "addr.type=unix,addr.path=n.sock"

CASES = []


def case(*words, differs=None, ours=None):
    """`ours`: what our line ends with where the two differ; None: nothing is said."""
    CASES.append((words, differs, ours))


def object_case(definition, **options):
    case("--object", definition, **options)


# ---- Objects

for wrong in ("", "id=x", "qom-type=", "secret", "secret,id", "nope,id=a", "secret,id=a", "secret,id=a,data=x,file=y",
              "secret,id=a,data=x,zip=1", "secret,id=a,file=nope", "secret,id=a,data=x,format=zip"):
    object_case(wrong)
for right in ("secret,id=a,data=x", "secret,id=a,data=eA==,format=base64", "iothread,id=a", "iothread,id=a,poll-max-ns=0",
              "throttle-group,id=a", "throttle-group,id=a,x-iops-total=5", "throttle-group,id=a,limits.iops-total=5",
              "tls-creds-anon,id=a", "tls-creds-anon,id=a,endpoint=server,dir=/nope", "authz-simple,id=a,identity=x",
              "authz-list,id=a", "authz-list,id=a,policy=allow",
              "authz-list,id=a,rules.0.match=fred,rules.0.policy=allow,rules.0.format=glob", "main-loop,id=a",
              "main-loop,id=a,aio-max-batch=5", '{"qom-type":"iothread","id":"a"}'):
    object_case(right)
for wrong in ("tls-creds-anon,id=a,endpoint=zip", "tls-creds-anon,id=a,verify-peer=zip", "tls-creds-anon,id=a,zip=1",
              "tls-creds-x509,id=a,endpoint=server,dir=certificates", "tls-creds-x509,id=a,endpoint=client,dir=certificates",
              "tls-creds-x509,id=a", "tls-creds-psk,id=a,endpoint=server,dir=certificates", "tls-creds-psk,id=a",
              "tls-creds-psk,id=a,endpoint=server,dir=certificates,username=x", "authz-simple,id=a", "authz-list,id=a,policy=zip",
              "authz-list,id=a,rules.0.match=fred,rules.0.policy=allow,rules.0.format=zip",
              "authz-list,id=a,rules.0.match=fred", "secret_keyring,id=a", "secret_keyring,id=a,serial=1",
              "secret_keyring,id=a,serial=x", "secret_keyring,id=a,serial=0", "main-loop,id=a,aio-max-batch=-5",
              "main-loop,id=a,thread-pool-min=50,thread-pool-max=4", "main-loop,id=a,thread-pool-max=0", "pr-manager-helper,id=a",
              "pr-manager-helper,id=a,path=/nope", "pr-manager-helper,id=a,path=list", "iothread,id=a,poll-grow=x",
              "iothread,id=a,thread-pool-min=50,thread-pool-max=4", "throttle-group,id=a,x-iops-total=5,x-iops-total-max=3",
              "throttle-group,id=a,limits.iops-total=5,x-iops-read=3", "throttle-group,id=a,x-iops-total=-5"):
    object_case(wrong)
object_case('{"qom-type":"iothread","id":"a"', differs=WORDS)
object_case("secret,id=", differs=ONE_LINE, ours="Parameter 'id' expects an identifier")
case("--object", "main-loop,id=a", "--object", "main-loop,id=b")
case("--object", "iothread,id=a", "--object", "iothread,id=a")
for asked in ("iothread,help", "main-loop,help", "secret,help", "tls-creds-x509,help", "authz-list,help", "secret_keyring,help",
              "pr-manager-helper,help", "authz-simple,help", "tls-creds-anon,help", "tls-creds-psk,help"):
    object_case(asked)
object_case("help", differs="the types that there are")
object_case("nope,help", differs="the types that there are")
object_case("throttle-group,help", differs="the limits one by one")

# ---- The others

for option in ("--blockdev", "--export", "--monitor", "--nbd-server"):
    case(option, "help")
case("--blockdev", "qcow2,help")
case(*NODE)
case(*NULL, "--export", EXPORT)
for wrong in ("", "nope", "driver=nope,node-name=a", "driver=qcow2,node-name=a", "driver=null-co",
              "driver=null-co,node-name=a b", "driver=qcow2,node-name=a,file.driver=file,file.filename=none",
              "driver=null-co,node-name=a,size=x", "driver=null-co,node-name=a,read-only=maybe", "driver=null-co,node-name=a,zip=1",
              '{"driver":"null-co","node-name":"a","zip":1}', "node-name=a"):
    case("--blockdev", wrong)
case(*NULL, *NULL)
case("--export", EXPORT)  # what it is to serve comes later
for wrong in ("", "nope,id=a,node-name=n", "vhost-user-blk", "vhost-user-blk,id=e", "vhost-user-blk,id=e,node-name=n",
              EXPORT + ",num-queues=0", EXPORT + ",num-queues=x", EXPORT + ",logical-block-size=1000", EXPORT + ",zip=1"):
    case(*NULL, "--export", wrong)
for right in (NBD, NBD + ",max-connections=5", "addr.type=inet,addr.host=localhost,addr.port=0"):
    case("--nbd-server", right)
case("--nbd-server", NBD, "--nbd-server", NBD)
NBD_EXPORT = "nbd,id=e,node-name=n"
case(*NULL, "--nbd-server", NBD, "--export", NBD_EXPORT)
for wrong in (NBD_EXPORT, NBD_EXPORT + ",bitmaps.0=nope", NBD_EXPORT + ",name=" + 4097 * "n", NBD_EXPORT + ",zip=1",
              "nbd,id=e", "nbd,node-name=n", NBD_EXPORT + ",allocation-depth=maybe"):
    case(*NULL, "--export", wrong)
    case(*NULL, "--nbd-server", NBD, "--export", wrong)
for wrong in (NBD + ",max-connections=x", NBD + ",max-connections=-1", NBD + ",max-connections=4294967296", NBD + ",tls-creds=nope",
              NBD + ",zip=1", "addr.type=unix", "addr.type=zip", "addr.type=inet,addr.host=localhost", ""):
    case("--nbd-server", wrong)
case("--nbd-server", "unix:n.sock", differs=WORDS, ours="Parameter 'addr' is missing")
case("--object", "iothread,id=io", "--nbd-server", NBD + ",tls-creds=io")
for right in ("null,id=a", "ringbuf,id=a", "ringbuf,id=a,size=64", "memory,id=a,size=1k", "file,id=a,path=out.txt", "pipe,id=a,path=fifo",
              "socket,id=a,path=s.sock,server=on,wait=off", "socket,id=a,host=127.0.0.1,port=0,server=on,wait=off",
              "socket,id=a,path=s.sock,server=on,wait=off,ipv4=on", "null,id=a,mux=off"):
    case("--chardev", right)
for wrong in ("", "null", "nope,id=a", "file,id=a", "file,id=a,path=/nope/x", "ringbuf,id=a,size=63", "pipe,id=a",
              "pipe,id=a,path=nope", "socket,id=a", "socket,id=a,path=s.sock", "socket,id=a,host=localhost",
              "socket,id=a,path=a,fd=3", "socket,id=a,fd=77", "socket,id=a,fd=x", "socket,id=a,path=s.sock,server=maybe",
              "socket,id=a,path=s.sock,server=off,wait=on", "socket,id=a,path=s.sock,server=on,wait=off,reconnect=5",
              "socket,id=a,path=s.sock,server=on,wait=off,zip=1"):
    case("--chardev", wrong)
case("--chardev", "null,id=a", "--chardev", "null,id=a")
case("--chardev", "null,id=a b", differs=ONE_LINE, ours="Parameter 'id' expects an identifier")
case("--chardev", "help", differs="the kinds that there are")
case("--chardev", "ringbuf,id=a,size=x", differs=ONE_LINE, ours="Parameter 'size' expects a non-negative number below 2^64")
for kind in ("pty,id=a", "udp,id=a,port=5"):
    case("--chardev", kind, differs=NOT_HERE)
for kind in ("serial,id=a,path=/nope", "mux,id=a,chardev=nope", "parallel,id=a,path=/nope"):
    case("--chardev", kind, differs=NOT_HERE)
case("--chardev", "null,id=a,path=x", differs=STRICT, ours="Invalid parameter 'path'")
for wrong in ("", "nope", "m,mode=readline", "m,mode=zip", "m,pretty=maybe", "m,zip=1", "chardev=nope"):
    case("--monitor", wrong)
case("--chardev", "null,id=a", "--monitor", "a", "--monitor", "a")
case("--pidfile", "/nope/pid")
case("--pidfile", "pid")
case("--daemonize", "--chardev", "stdio,id=a")
case("--foo")
case("--blockdev")
case("x")


def run(program, words, directory):
    monitor = () if "--daemonize" in words or words[-1] in ("--foo", "--blockdev") else MONITOR
    done = subprocess.run([program, *words, *monitor], executable=program, cwd=directory, input=QUIT, capture_output=True, timeout=TIMEOUT_S)
    out = done.stdout.decode()
    if out.startswith('{"QMP"'):
        out = ""
    return done.returncode, out, done.stderr.decode().replace(str(program), PROGRAM)


def make_files(directory):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", directory / "disk.qcow2", "16M"], check=True)
    subprocess.run(["mkfifo", directory / "fifo"], check=True)
    (directory / "certificates").mkdir()
    (directory / "list").write_text("{}")


def compare(words, differs, ours, programs):
    outcomes = []
    for program in programs:
        with tempfile.TemporaryDirectory() as name:
            make_files(pathlib.Path(name))
            outcomes.append(run(program, words, pathlib.Path(name)))
    mine, theirs = outcomes
    problems = []
    if (mine == theirs) == bool(differs):
        problems.append(f"the accepted difference is gone: {differs}" if differs else f"reference {theirs}\n      ours      {mine}")
    if differs and ours is not None and not mine[2].endswith(f": {ours}\n"):
        problems.append(f"ours should say {ours}, says {mine}")
    if mine[2].count("\n") > 1 and mine != theirs:
        problems.append(f"more than a line: {mine}")
    return [f"{' '.join(words)}\n      {problem}" for problem in problems]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--reference", required=True)
    arguments = parser.parse_args()
    programs = (arguments.ours, arguments.reference)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: compare(*one, programs), CASES))
    problems = [line for lines in found for line in lines]
    print(f"{len(CASES)} command lines, {len(problems)} of them differ")
    for problem in problems:
        print(f"    {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
