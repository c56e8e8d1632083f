"""Scripts for qemu-io over blkdebug: injected errors, states, limits, breakpoints."""

import shlex

from cases import accept
from cases_shell import programs

CLOSING = accept("a flush that fails when the image is closed is told", "stderr")
DURABLE = accept("a write that is to be durable is one request here, a write and a flush there", "stdout", "stderr")
ADVICE = accept("discarding is advice: what falls short of the granularity is left as it is", "files")
OWN_SYNTAX = accept("a line of the file that cannot be read is named")

RAW = "driver=raw,file.driver=blkdebug,file.image.filename=raw.img"
QCOW2 = "driver=qcow2,file.driver=blkdebug,file.image.filename=data.qcow2"


def over(base, options, *commands, **fields):
    """`options` are those of blkdebug, parted by commas."""
    words = []
    for command in commands:
        words += ["-c", command]
    described = ",".join([base] + ["file." + option for option in options.split(",") if option])
    line = shlex.join(["--image-opts", *words, described])
    return (line, fields) if fields else line


def config(name, *commands, image="raw.img", fmt="raw", **fields):
    words = []
    for command in commands:
        words += ["-c", command]
    line = shlex.join(["-f", fmt, *words, f"blkdebug:{name}:{image}"])
    return (line, fields) if fields else line


ONE = "inject-error.0."
programs("blkdebug errors",
         over(RAW, ONE + "event=read_aio", "read 0 512", "read 0 512", "write 0 512", **CLOSING),
         over(RAW, f"{ONE}event=read_aio,{ONE}once=on,{ONE}errno=28", "read 0 512", "read 0 512"),
         over(RAW, f"{ONE}event=none,{ONE}sector=1", "read 0 512", "read 512 512", "write 0 1M", "write 1k 1k", "map"),
         over(RAW, f"{ONE}event=none,{ONE}sector=1", "discard 512 512", "write -z 512 512", "write -z 1k 512"),
         over(RAW, f"{ONE}event=none,{ONE}iotype=write", "read 0 512", "write 512 512", "write -z 0 64k", "discard 512 512"),
         over(RAW, f"{ONE}event=none,{ONE}iotype=write-zeroes", "read 0 512", "write 512 512", "write -z 0 64k"),
         over(RAW, f"{ONE}event=none,{ONE}iotype=discard", "discard 0 64k", "write 0 512"),
         over(RAW, f"{ONE}event=none,{ONE}iotype=flush", "read 0 512", "write 0 512", **DURABLE),
         over(RAW, f"{ONE}event=none,{ONE}iotype=block-status", "map", "alloc 0", "read 0 512"),
         over(RAW, f"{ONE}event=write_aio,{ONE}state=2,set-state.0.event=write_aio,set-state.0.state=1,set-state.0.new_state=2",
              "write 0 512", "write 0 512", "read 0 512", **CLOSING),
         over(RAW, f"{ONE}event=pwritev", "read 0 512", "write 0 512", "read 0 512", **CLOSING),
         over(RAW, f"{ONE}event=none,{ONE}errno=0", "read 0 512", "write 0 512"),
         over(RAW, "inject-error.event=none", "read 0 512", **CLOSING),
         over(RAW, f"{ONE}event=none,{ONE}once=on,inject-error.1.event=none,inject-error.1.once=on,inject-error.1.errno=28",
              "read 0 512", "read 0 512", "read 0 512"),
         over(QCOW2, ONE + "event=read_aio", "read 64k 512", "read 0 512", "read 64k 512", **CLOSING),
         over(QCOW2, f"{ONE}event=l2_load,{ONE}once=on", "read 64k 512", "read 64k 512"),
         over(QCOW2, ONE + "event=reftable_load", "length"),
         over(QCOW2, f"{ONE}event=read_aio,{ONE}once=on,{ONE}immediately=on", "read 64k 512", "read 64k 512"),
         )

programs("blkdebug options",
         *[over(RAW, options, "length", "write -P 3 100 4000", "read -P 3 100 4000", "write -z 1 64k", "discard 0 100k",
                "read -P 0 1 64k", **(ADVICE if options == "opt-discard=64k,max-discard=128k" else {}))
           for options in ("align=513", "align=4096", "align=0", "align=4k,max-transfer=1k", "align=512,max-transfer=1536",
                           "opt-write-zero=4k,max-write-zero=4k", "opt-discard=64k,max-discard=128k",
                           "opt-discard=64k,max-discard=100000", "align=4k,opt-write-zero=1000", "foo=1",
                           ONE + "event=foo", ONE + "errno=5", f"{ONE}event=none,{ONE}iotype=foo",
                           f"{ONE}event=none,{ONE}foo=1", "set-state.0.event=none",
                           "set-state.0.event=none,set-state.0.new_state=x", "config=nofile",
                           f"{ONE}event=none,{ONE}errno=x", "inject-error.1.event=none", f"{ONE}event=none,{ONE}once=x")])

programs("blkdebug config",
         config("rules.conf", "read 0 512", "read 0 512", "write 0 512", "write 0 512", **CLOSING),
         config("", "length", "read -P 1 64k 512"), config("nofile", "length"), config("", "length", image="nofile"),
         "-f raw -c length blkdebug:raw.img", config("", "length", "info", image="data.qcow2", fmt="qcow2"),
         config("", "read -P 1 64k 64k", "map", image="overlay.qcow2", fmt="qcow2", needs=("overlay.qcow2",)),
         config("named.conf", "read 0 512", **CLOSING), config("empty.conf", "read 0 512"),
         config("event.conf", "read 0 512"), config("group.conf", "read 0 512"), config("none.conf", "read 0 512"),
         config("unquoted.conf", "read 0 512", **OWN_SYNTAX),
         )

programs("blkdebug breakpoints",
         over(RAW, "", "break write_aio A", "aio_write 0 512", "wait_break A", "resume A", "aio_flush", "resume A", "remove_break A",
              rules=("sorted",)),
         over(RAW, "", "break foo A", "resume B", "break write_aio C", "remove_break C", "remove_break C", "write 0 512"),
         over(RAW, "", "break pwritev A", "aio_write 0 512", "wait_break A", "read 0 512", "length", "remove_break A", "aio_flush",
              rules=("sorted",)),
         over(RAW, "", "break read_aio A", "break read_aio B", "aio_read 0 512", "wait_break A", "aio_read 512 512", "wait_break B",
              "resume B", "resume A", "aio_flush", rules=("sorted",)),
         over(QCOW2, "", "break cluster_alloc A", "aio_write 3M 512", "wait_break A", "resume A", "aio_flush", "read -P 0xcd 3M 512",
              rules=("sorted",)),
         over(QCOW2, "", "break write_aio A", "aio_write -P 4 3M 64k", "wait_break A", "read -P 0 3M 64k", "resume A", "aio_flush",
              "read -P 4 3M 64k", rules=("sorted",)),
         )
