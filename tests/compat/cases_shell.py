"""The table: scripts for qemu-io, good and bad, that ours must run as QEMU's does.

A row is a script, its commands parted by " ; ", run on one image; or (script, {fields of Case}).
"""

import shlex

from cases import Case, accept

CASES = []

RULES = ("figures", "usage")


def scripts(prefix, words, *rows, **common):
    """Each row becomes `qemu-io -c COMMAND... WORDS`."""
    for number, row in enumerate(rows, 1):
        script, fields = (row, {}) if isinstance(row, str) else row
        fields = {**common, **fields}
        fields["rules"] = RULES + tuple(fields.get("rules", ()))
        commands = []
        for command in script.split(" ; "):
            commands += ["-c", command]
        CASES.append(Case(f"{prefix}/{number}", shlex.join(commands) + " " + words, **fields))


def programs(prefix, *rows, **common):
    """Each row is a whole command line."""
    for number, row in enumerate(rows, 1):
        command, fields = (row, {}) if isinstance(row, str) else row
        fields = {**common, **fields}
        fields["rules"] = RULES + tuple(fields.get("rules", ()))
        CASES.append(Case(f"{prefix}/{number}", command, **fields))


RAW = "-f raw raw.img"
HOLE = "-f raw hole.img"
QCOW2 = "-f qcow2 data.qcow2"
OVERLAY = "-f qcow2 overlay.qcow2"

# ---- Accepted differences, each with its reason

OWN_TEXT = accept("help and version texts are our own", "stdout")
SHORT_OPTION = accept("QEMU warns of bare words in option lists; ours takes them as 'on' silently")
HEX_SUFFIX = accept("QEMU warns of a suffix behind a hexadecimal number; ours takes it silently")
EMPTY_BACKING = accept("QEMU warns that an empty backing option is deprecated")
LOOP = accept("a chain that is a loop is called so")
LONG_LINE = accept("QEMU cuts lines at 1023 bytes and runs the pieces", "stdout", "stderr")
ZERO_ALREADY = accept("what reads as zeroes, with nothing beneath, stays unallocated when zeroed", "stdout")
PAST_END = accept("the bytes that round a raw image up to a sector are nowhere in the file", "stdout")
CHOICES = accept("a value that is none of an option's choices is refused in the same words for every option")
SIGNAL = accept("QEMU keeps this signal for itself", "status")
WRONG_WORD = accept("QEMU names the word after the command, ours the word that is wrong", "stdout")

# ---- The program

programs("program",
         "", "-c length", "-c quit", "-c ''", "-c '   '", "-c foo", "-c help", "-c '?'",
         "-c 'help length'", "-c 'help flush'", "-c 'help q'", "-c 'help ?'", "-c 'help nope'",
         "-c 'help a b'", "-c 'foo bar' -c quit -c foo", "-c 'quit 1 2 3' -c foo",
         *[(f"-c 'help {name}'", OWN_TEXT) for name in
           ("read", "readv", "write", "writev", "aio_read", "aio_write", "discard", "open",
            "reopen", "sigraise")],
         *[f"-c 'help {name}'" for name in
           ("abort", "aio_flush", "alloc", "break", "close", "help", "info", "map", "remove_break",
            "resume", "sleep", "truncate", "wait_break")],
         ("--help", OWN_TEXT), ("-h nofile", OWN_TEXT), ("--version", OWN_TEXT), ("-V", OWN_TEXT),
         ("--frob", OWN_TEXT), ("-z", OWN_TEXT), ("-c", OWN_TEXT), ("--cmd", OWN_TEXT),
         ("-rz raw.img", OWN_TEXT), ("-c length raw.img hole.img", OWN_TEXT), ("-o", OWN_TEXT),
         "-t foo raw.img", "-d foo raw.img", "-i foo raw.img", "--cache=bar raw.img",
         "-f raw -i native -c length raw.img", "-f raw -k -c length raw.img",
         "-f raw -n -k -c length raw.img", "-f raw -i threads -c length raw.img",
         "-f raw -i io_uring -c 'read 0 512' raw.img", "-f raw -n -i native -c 'read 0 512' raw.img",
         "-f raw --nocache --native-aio --read-only -c 'read 0 4k' raw.img",
         "-f raw -T foo -c length raw.img",
         "-f raw --image-opts -c length file.filename=raw.img",
         "--image-opts -c length -c info driver=raw,file.filename=raw.img",
         "--image-opts -c length driver=qcow2,file.filename=data.qcow2,lazy-refcounts=on",
         ("--image-opts -c length raw.img", SHORT_OPTION),
         "--image-opts -c length driver=raw,file.filename=raw.img,foo=bar",
         "--image-opts -c length driver=raw", "--image-opts -c length driver=nope,file.filename=raw.img",
         "-f nope raw.img -c length", "-f qcow2 raw.img -c length", "-f raw -f qcow2 raw.img",
         "nofile", "-f raw nofile -c length", "-r nofile", "-s nofile", "/nonexist/file",
         "''", "-f raw ''", "foo:bar -c length", "sub", "-f raw sub -c length",
         "raw.img -c length", "-r raw.img -c length", "data.qcow2 -c length -c info",
         "-U raw.img -c length", "-U -r raw.img -c length", "-r -s -f raw raw.img -c length",
         "--force-share -r data.qcow2 -c 'read -P 1 64k 64k'",
         "-f raw -C -r raw.img -c length",
         "-f raw -c length raw.img -c 'alloc 0'", "-- raw.img", ("-r -- raw.img -c length", OWN_TEXT),
         "--object foo -f raw raw.img -c length",
         "--object secret,id=a,data=foo -f raw raw.img -c length",
         "--object secret,id=a -f raw raw.img -c length",
         "--object throttle-group,id=a -f raw raw.img -c length",
         "'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"raw.img\"}}' -c length",
         "corruptbit.qcow2 -c length", "-r corruptbit.qcow2 -c length", "badversion.qcow2 -c length",
         ("loop.qcow2", LOOP), "nobacking.qcow2",
         )

scripts("without an image", "",
        "sleep 1 ; flush", "truncate 1", "map", "alloc 0", "sigraise 0", "break a b", "read", "reopen",
        "aio_flush", "wait_break x", "resume x", "remove_break x", "info", "length", "write 0 1",
        "close", "discard 0 1", "readv 0 1", "writev 0 1", "aio_read 0 1", "aio_write 0 1")

# ---- Standard input

PROMPTS = {"rules": RULES + ("prompts",)}

for number, script in enumerate(
        ("", "length\n", "length", "\n\nlength\nfoo\nlength\n", "foo\nlength\n", "quit\nlength\n",
         "length\nquit\n", "q", ("aio_read 0 512\naio_flush\nquit\n", PROMPTS), "read 0 512; length\n",
         "#length\n", "length\r\n", "   length   \n", "read -v 0 16\nwrite -P 3 0 16\nread -v 0 16\n",
         "close\nlength\nopen -o driver=raw hole.img\nlength\nclose\n",
         "help length\n?\n", ("aio_write -P 9 0 64k\naio_flush\nread -P 9 0 64k\n", PROMPTS), ("write 0 " + "1" * 5000, LONG_LINE)), 1):
    script, fields = (script, {}) if isinstance(script, str) else script
    CASES.append(Case(f"standard input/{number}", "-f raw raw.img", script=script,
                      needs=("hole.img",), **{"rules": RULES, **fields}))

# ---- Numbers

scripts("numbers", RAW,
        "read 0x200 0x200", "read 0X200 0x10", "read 1.5k 1", "read 1k 1.5k", "read 0.5k 0.5k",
        "read 1.5 1", "read 0 1.5", ("read 0x1k 1", HEX_SUFFIX), "read 0xk 1", "read +1 1",
        "read 1e2 1", "read 0 1K", "read 1b 1B", "read 0 1kk", "read 010 010", "read 1kb 1",
        'read " 1" 1', 'read "0" "512"', "read '0' 512", "read 0  512 ", " read 0 512", "read 0\t512",
        "read x 1", "read 0 x", "read -1 1", "read -- -1 1", "read 0 -1", "read 0 -- -1", "read . 1",
        "read 1. 1", "read .5k 1", "read 1m 1", "read 0 0.001M", "read 0 1g", "read 1T 1", "read 1P 1",
        "read 7E 1", "read 8E 1", "read 0 8E", "read 0 99999999999999999999", "read 9223372036854775807 1",
        "read 9223372036854775808 1", "read 0x7fffffffffffffff 1", "read 0x8000000000000000 1",
        "read 0xffffffffffffffffff 1", "read 0 2G", "read 0 2147483136", "read 0 2147483137",
        "read 0 2147483647", "read 0 4G", "read 0 7E", "read 1M 1", "read 1M 0", "read 1048577 0",
        "read 1048575 2", "read 2M 0", "read 0 0", "read 0 1M", "read 0 1048577")

scripts("patterns", RAW,
        "read -P 256 0 512", "read -P -1 0 512", "read -P 0xff 0 512", "read -P 0377 64k 512",
        "read -P x 0 512", "read -P 0x 0 512", "read -P '' 0 512", "read -P 1k 0 512",
        "read -P 4294967297 0 512", "read -P 99999999999999999999 0 512", "read -P -0 0 1",
        "read -P +1 64k 1", "read -P 0x1 64k 1", "read -P 01 64k 1", "read -P 08 64k 1",
        "write -P 256 0 1", "writev -P x 0 1", "aio_read -P x 0 1", "aio_write -P 999 0 1")

# ---- read

scripts("read", RAW,
        "read", "r", "read 0", "r 0", "read 0 1 2", "read -Z 0 1", "read -a 0 512", "read 0 512",
        "r 64k 64k", "read -C 0 512", "read -q 0 512", "read -qC 0 512", "read -v 0 32", "read -v 10 20",
        "read -v 65530 12", "read -vC 0 16", "read -vq 0 16", "read -v 0 0", "read -p 0 512",
        "read -P 1 64k 128k", "read -P 1 64k 128k ; read -P 1 0 64k", "read -P 1 65535 2",
        "read -P 1 -q 0 512", "read -P 1 -v 65534 4", "read -P 0 -s 0 -l 10 0 512", "read -s 0 0 512",
        "read -l 0 0 512", "read -P 0 -l 513 0 512", "read -P 0 -s 512 0 512", "read -P 0 -s 513 0 512",
        "read -P 0 -s 500 -l 13 0 512", "read -P 0 -s 1 -l 1 0 2", "read -P 1 -s 64k -l 64k 0 128k",
        "read -P 1 -s 63k 0 128k", "read -l x -P 1 0 1", "read -s x -P 1 0 1", "read -l -P 1 0 1",
        "read -l 4G -P 0 0 1", "read -l 8E -P 0 0 1", "read 0 -P", "read -P", "read -P 1", "read -P 1 0",
        "read 0 512 -v", "read -v -- 0 4", "read -qP0 0 512", "read -P0x7 512k 4k",
        "read -b 0 512", "read -b 1 512", "read -b 0 1", "read -bq 0 0", "read -bz 0 1")

scripts("readv", RAW,
        "readv 0 512", "readv 0 512 512", "readv -v 0 20 20", "readv -P 0 0 512", "readv -P 1 65530 6 6",
        "readv -q 0 512", "readv -C 0 512", "readv 0", "readv", "readv x 1", "readv 0 x", "readv 0 1 x",
        "readv -Z 0 1", "readv 0 2G", "readv 0 1G 1G", "readv 0 0", "readv 0 1 0 1", "readv 1M 1",
        "readv -1 0", "readv -- -1 0", "readv 0 -- -1", "readv -b 0 1", "readv 0 1 2 3 4 5 6 7 8 9 10",
        "readv 1048570 3 3 1", "readv -v 0 0", "readv -P 1 64k 64k 1k 512 513")

# ---- write

scripts("write", RAW,
        "write", "w", "write 0", "write 0 1 2", "write -Z 0 1", "write 0 512 ; read -P 0xcd 0 512",
        "w 0 512", "write -P 7 0 1M ; read -P 7 0 1M", "write -P 7 1 1 ; read -v 0 4",
        "write -P 7 511 2 ; read -v 510 4", "write -z 0 512 ; read -P 0 0 512",
        "write -z 64k 64k ; map", "write -z 64k 1 ; read -v 65535 3", "write -u 0 512", "write -n 0 512",
        "write -z -u 64k 64k ; read -P 0 64k 64k", "write -z -n 64k 64k ; read -P 0 64k 64k",
        "write -zun 0 1M ; read -P 0 0 1M", "write -z -P 1 0 512", "write -c 0 512", "write -c 0 64k",
        "write -b 0 512", "write -b -c 0 512", "write -b -z 0 512", "write -z -c 0 512", "write -f -b 0 512",
        "write -f -c 0 512", "write -f 0 512", "write -fz 0 512", "write -fzu 64k 4k", "write -s nofile 0 512",
        ("write -s text 0 10 ; read -v 0 16", {"needs": ("text",)}),
        ("write -s text 0 100 ; read -v 0 100", {"needs": ("text",)}),
        ("write -s text 0 2 ; write -s text 0 0", {"needs": ("text",)}),
        ("write -s zero-length.img 0 10", {"needs": ("zero-length.img",)}),
        "write -s sub 0 10", "write -s raw.img -P 1 0 512", "write -s raw.img -z 0 512", "write -C 0 512",
        "write -q 0 512", "write -p 0 512", "write 1M 1", "write 0 0", "write 1M 0", "write 2M 0",
        "write 1048575 2", "write 0 2G", "write -z 0 2G", "write -zn 0 3G", "write -z 0 1M", "write x 1",
        "write 0 x", "write -- 0 512", "write -P", "write -P 1", "write -P 1 0", "write 0 -P", "write 0 1 -P 5",
        "write -b 1 512", "write -b 0 1", "write -c 1 512", "write -c 0 1", "write 0 -1", "write -1 0",
        "write 1M 512 ; length ; write 0 1 ; length")

scripts("writev", RAW,
        "writev 0 512", "writev 0 512 512 ; read -P 0xcd 0 1k", "writev -P 1 0 20 20 ; read -v 0 48",
        "writev -q 0 512", "writev -C 0 512", "writev -f 0 512", "writev 0", "writev", "writev x 1",
        "writev 0 x", "writev 0 1 x", "writev -Z 0 1", "writev 0 2G", "writev 0 1G 1G", "writev 0 0",
        "writev 1M 1", "writev -z 0 1", "writev -q 0 1 1 1", "writev -P 5 511 1 1 1 ; read -v 508 10")

scripts("qcow2 write", QCOW2,
        "write 0 64k ; read -P 0xcd 0 64k", "write -P 3 100k 200k ; read -P 3 100k 200k ; map",
        "write -z 64k 64k ; map ; read -P 0 64k 64k", "write -zu 64k 64k ; map", "write -zn 64k 4k ; map",
        ("write -z 3M 64k ; map ; alloc 3M", ZERO_ALREADY), ("write -z 3M 4k ; map", ZERO_ALREADY), "write -P 9 4190k 2k ; map",
        "write -c 1 512", "write 4M 1", "write 4194303 2", "write -f 0 512 ; flush ; read -P 0xcd 0 512",
        ("write -zf 0 4M ; map", ZERO_ALREADY), "write 0 4M ; map ; alloc 0 4M", "writev -P 8 60k 4k 8k ; read -P 8 60k 12k ; map",
        "write -P 1 1 1 ; read -v 0 4 ; write -z 1 1 ; read -v 0 4",
        "write -c 3M 64k ; read -P 0xcd 3M 64k ; map", "write -c -P 4 3M 128k ; read -P 4 3M 128k",
        "write -c 64k 64k", "write -c 3M 512", "write -c 3M 0", "write -c 4095k 1k", "write -c 4032k 64k",
        "write -c 3M 64k ; write -P 6 3M 512 ; read -P 6 3M 512 ; read -P 0xcd -s 512 3M 64k")

# ---- aio

scripts("aio_read", RAW,
        "aio_read 0 512 ; aio_flush", "aio_read -v 0 20 ; aio_flush", "aio_read -P 1 0 512 ; aio_flush",
        "aio_read -P 1 64k 512 ; aio_flush", "aio_read -i 0 512", "aio_read -i 0", "aio_read -q 0 512 ; aio_flush",
        "aio_read -C 0 512 512 ; aio_flush", "aio_read 1M 1 ; aio_flush", "aio_read 0 x", "aio_read x 0",
        "aio_read 0", "aio_read", "aio_read -z 0 1", "aio_read 0 0 ; aio_flush", "aio_read -- -1 0", "aio_read 0 2G",
        "aio_read 0 1G 1G", "aio_read 0 1 2 3 4 ; aio_flush", "aio_flush x", "aio_flush", "aio_read -vq 0 4 ; aio_flush",
        "aio_read -P 9 -v 0 4 ; aio_flush", "aio_read -P 9 -q 0 4 ; aio_flush", "aio_read 0 512", "aio_read 0 512 ; quit",
        "aio_read 0 512 ; close", "aio_read 0 512 ; aio_flush ; read 0 512",
        ("aio_read 0 4k ; aio_read 64k 4k ; aio_read 128k 4k ; aio_flush", {"rules": ("sorted",)}),
        ("aio_read 0 512 ; length ; read 512 512", {"rules": ("sorted",)}))

scripts("aio_write", RAW,
        "aio_write 0 512 ; aio_flush ; read -P 0xcd 0 512", "aio_write -z 64k 512 ; aio_flush ; read -P 0 64k 512",
        "aio_write -u 0 512", "aio_write -zu 0 512 ; aio_flush", "aio_write -z -P 1 64k 512 ; aio_flush ; read -P 0 64k 512",
        "aio_write -z 0 512 512", "aio_write -i 0 512", "aio_write -i 0", "aio_write -iz 0 512",
        "aio_write -q 0 512 ; aio_flush", "aio_write -C 0 512 512 ; aio_flush", "aio_write 1M 1 ; aio_flush",
        "aio_write 0 x", "aio_write x 0", "aio_write 0", "aio_write", "aio_write -Z 0 1", "aio_write 0 0 ; aio_flush",
        "aio_write -f 0 2 ; aio_flush", "aio_write 0 2G", "aio_write 0 1G 1G", "aio_write -z 0 2G ; aio_flush",
        "aio_write -z 0 1T ; aio_flush", "aio_write -n 0 1", "aio_write -zn 0 1",
        "aio_write -P 5 0 1 2 3 4 ; aio_flush ; read -v 0 16", "aio_write 0 64k", "aio_write 0 64k ; close",
        "aio_write 0 64k ; quit", "aio_write -z 0 8E", "aio_write -z x 0", "aio_write -z 0 x",
        ("aio_write -P 1 0 64k ; aio_write -P 2 64k 64k ; aio_write -P 3 128k 64k ; aio_flush ; read -P 1 0 64k ; "
         "read -P 2 64k 64k ; read -P 3 128k 64k", {"rules": ("sorted",)}))

scripts("qcow2 aio", QCOW2,
        "aio_write -P 5 0 64k ; aio_flush ; read -P 5 0 64k ; map",
        ("aio_write -P 5 0 64k ; aio_write -P 6 1536k 64k ; aio_read 64k 64k ; aio_flush ; map", {"rules": ("sorted",)}),
        "aio_write -zu 64k 128k ; aio_flush ; map", "aio_write 4M 1 ; aio_flush", "aio_write 0 64k ; quit")

# ---- discard, flush, truncate, length

scripts("discard", RAW,
        "discard 0 64k", "discard 64k 64k ; read -P 0 64k 64k", "d 0 512", "discard -C 0 512", "discard -q 0 512",
        "discard", "discard 0", "discard 0 1 2", "discard x 1", "discard 0 x", "discard -x 0 1", "discard 0 0",
        "discard 1M 0", "discard 1M 1", "discard 0 2M", "discard 0 3G", "discard 0 1M ; read -P 0 0 1M", "discard 1 1")

scripts("qcow2 discard", QCOW2,
        "discard 64k 64k ; map ; read -P 0 64k 64k", "discard 0 4M ; map ; read -P 0 0 4M", "discard 64k 1 ; map",
        "discard 96k 64k ; map", "discard 4M 1", "discard 0 5M", "discard 64k 128k ; write -P 3 64k 64k ; map")

programs("discard mode",
         "-d unmap -f raw -c 'write -P 1 0 1M' -c 'discard 0 64k' -c 'read -v 0 16' raw.img",
         "-d ignore -f raw -c 'write -P 1 0 1M' -c 'discard 0 64k' -c 'read -v 0 16' raw.img",
         "-d off -f qcow2 -c 'discard 64k 64k' -c map data.qcow2", "-d on -f qcow2 -c 'discard 64k 64k' -c map data.qcow2",
         "--discard=ignore -f qcow2 -c 'discard 64k 64k' -c map data.qcow2",
         "-d unmap -f raw -c 'write -zu 64k 64k' -c 'read -P 0 64k 64k' raw.img")

scripts("truncate", RAW,
        "truncate 2M ; length", "truncate 512k ; length", "truncate 1000 ; length", "truncate x", "truncate", "t 1536k ; l",
        "truncate -m off 1M", "truncate -m falloc 2M ; length", "truncate -m full 3M ; length ; read -P 0 1M 2M",
        "truncate -m metadata 4M", "truncate -m foo 1M", "truncate -x 1M", "truncate 64k 2 ; length", "truncate 2M -m off ; length",
        "truncate -- 2M ; length", ("truncate -- -1", WRONG_WORD), "truncate -1", "truncate 8E", ("truncate -m off x", WRONG_WORD),
        "truncate 1 2 3 4", "truncate 0 ; length ; map ; read 0 0", "truncate 2M ; write -P 3 1M 1M ; read -P 3 1M 1M",
        "truncate 1536k ; read -P 0 1M 512k", "length x", "l", "flush", "f", "flush x", "write 0 512 ; flush")

scripts("qcow2 truncate", QCOW2,
        "truncate 2M ; length ; map", "truncate 8M ; length ; map", "truncate 1000", "truncate -m off 5M ; length",
        "truncate -m falloc 5M ; map", "truncate -m full 5M ; map", "truncate -m metadata 5M ; map", "truncate -m foo 1M",
        "truncate 0 ; length ; map ; alloc 0 ; alloc 0 1", "truncate 8M ; write -P 2 7M 64k ; read -P 2 7M 64k ; read -P 0 4M 3M",
        "truncate 1M ; truncate 4M ; read -P 0 1M 3M", "truncate 2M ; read 2M 1")

# ---- map, alloc, info

scripts("map raw", RAW, "map", "map x", "alloc 0", "a 64k 64k", "alloc 0 1M", "alloc 1M", "alloc 2M", "alloc 0 2M", "alloc 0 0",
        "alloc", "alloc x", "alloc 0 x", "alloc 1 2 3", "alloc -- -1", "alloc -1", "alloc 8E", "alloc 0 8E", "alloc 3M 1M",
        "info", "i", "info x", "length ; info ; length")
scripts("map hole", HOLE, "map ; alloc 0 1M", "write 0 1 ; map")
scripts("map odd", "-f raw odd.img", ("map ; length", PAST_END), "read 0 1000", "read 0 1024", "read 0 1025", "write 1000 24 ; length",
        "write 1000 25", ("alloc 0 1024", PAST_END), "read -v 990 34")
scripts("map empty", "-f raw zero-length.img", "map", "alloc 0", "read 0 0", "length", "write 0 1", "read 0 1", "truncate 1M ; map")
scripts("map qcow2", QCOW2, "map", "alloc 0 4M", "alloc 64k 1M", "alloc 100k 70000", "alloc 1", "alloc 64k 511", "alloc 192k",
        "info ; length", "alloc 5M", "alloc 0 5M")
scripts("map overlay", OVERLAY, "map", "alloc 0 4M", "alloc 128k", "read -P 1 64k 64k", "read -P 3 128k 64k", "read -v 131070 4",
        "write -P 8 64k 4k ; read -P 8 64k 4k ; read -P 1 68k 60k ; map", "write -z 1M 4k ; map", "discard 128k 64k ; map ; read -v 128k 16",
        "info", "truncate 5M ; map ; read -P 0 4M 1M")
scripts("map chain", "-f qcow2 top.qcow2", "map", "alloc 0 4M", "read -P 4 256k 64k ; read -P 3 128k 64k ; read -P 1 64k 64k",
        "write -P 9 130k 2k ; read -P 3 128k 2k ; read -P 9 130k 2k ; map")
scripts("map short backing", "-f qcow2 short.qcow2", "map ; read -P 0 4M 2M", "write -P 1 4190k 100k ; map ; read -P 1 4190k 100k")

# ---- Read-only images

scripts("read-only", "-r -f raw raw.img",
        "write 0 1", "w 0 1", "writev 0 1", "aio_write 0 1", "discard 0 1", "truncate 2M", "write -z 0 1", "write -Z 0 1",
        "write", "discard x", "flush", "read -P 1 64k 512", "map ; info ; length", "write 0 1 ; read 0 1", "aio_write -i 0",
        "reopen -w ; write 0 1", "reopen -r ; write 0 1", "truncate x")
scripts("read-only qcow2", "-r -f qcow2 data.qcow2", "write 0 1", "map ; read -P 1 64k 64k", "reopen -w ; write 0 512 ; map",
        "truncate 8M", "info")

# ---- Temporary overlay, cache modes, alignment

scripts("snapshot", "-s -f raw raw.img",
        "write 0 512 ; read -P 0xcd 0 512 ; map", "map ; info", "read -P 1 64k 128k", "discard 64k 64k ; read 64k 64k", "length")
scripts("snapshot qcow2", "-s -f qcow2 data.qcow2", "write 0 512 ; map", "write -z 64k 64k ; read -P 0 64k 64k ; read -P 1 128k 64k",
        "write 4190k 4k ; read -P 0xcd 4190k 4k")
scripts("snapshot read-only", "-s -r -f raw raw.img", "write 0 512", "map ; read -P 1 64k 64k")
programs("cache",
         *[f"-t {mode} -f {fmt} -c 'write -P 5 1 700' -c 'read -P 5 1 700' -c 'read -v 0 4' {image}"
           for mode in ("none", "off", "writeback", "writethrough", "directsync", "unsafe")
           for fmt, image in (("raw", "raw.img"), ("qcow2", "data.qcow2"))],
         "-f raw -m -n -c 'read 0 512' -c 'write 512 512' -c 'read -P 0xcd 512 512' raw.img",
         "-f raw -m -c 'readv -P 1 64k 512 1k' -c 'writev 0 1 2 3' -c 'read -v 0 8' raw.img",
         "-f qcow2 -m -n -c 'write -P 4 60k 8k' -c 'read -P 4 60k 8k' data.qcow2",
         "-f raw -n -c 'read 1 5' -c 'write 1 5' -c 'read -v 0 8' raw.img",
         "-f raw -n -c 'aio_write -P 2 3 5' -c aio_flush -c 'read -v 0 10' raw.img")

scripts("copy-on-read", "-C -f qcow2 overlay.qcow2",
        "map ; read -P 1 64k 1 ; map", "read -P 1 64k 64k ; read -P 3 128k 64k ; read -P 2 1M 1 ; map", "read 0 4M ; map ; alloc 0 4M",
        "info ; length", "write -P 9 64k 512 ; read -P 9 64k 512 ; read -P 1 65k 63k ; map", "aio_read 64k 512 ; aio_flush ; map",
        "reopen ; read 64k 1 ; map", "truncate 5M ; read -P 0 4M 1M ; length")
programs("copy-on-read program",
         "-C overlay.qcow2 -c 'read 64k 64k' -c map", "-C -f raw raw.img -c 'read -P 1 64k 64k' -c map",
         "-c 'open -C -o driver=qcow2 overlay.qcow2' -c 'read 64k 64k' -c map", "-C -f qcow2 top.qcow2 -c 'read 0 4M' -c map",
         "-C -s -f raw raw.img -c 'read 64k 64k' -c map", "-C -r -f qcow2 overlay.qcow2", "-C nofile",
         "--image-opts -C -c 'read 64k 1' -c map driver=qcow2,file.filename=overlay.qcow2", needs=("overlay.qcow2",))

# ---- open, close, reopen

programs("open",
         "-c open", "-c 'open -r'", "-c 'open -r -o driver=raw raw.img' -c length -c 'write 0 1'", "-c 'open -o driver=raw'",
         "-c 'open -o driver=raw,file.filename=raw.img' -c length", "-c 'open -r -o foo=bar raw.img'", "-c 'open raw.img hole.img'",
         "-c 'open -Z raw.img'", "-c 'open -t foo raw.img'", "-c 'open -d foo raw.img'", "-c 'open -i foo raw.img'",
         "-c 'open -k -o driver=raw raw.img'", "-c 'open -nk -o driver=raw raw.img' -c 'read 0 512'",
         "-c 'open -i threads -o driver=raw raw.img' -c 'read 0 512'", "-c 'open -t none -o driver=raw raw.img' -c 'write 0 512'",
         "-c 'open -s -o driver=raw raw.img' -c 'write 0 512' -c 'read -P 0xcd 0 512' -c map -c info",
         "-c 'open -C -r raw.img'", "-c 'open -U raw.img'", "-c 'open -U -r -o driver=raw raw.img' -c length", "-c 'open nofile'",
         "-c 'open -o driver=qcow2 raw.img'", "--image-opts -c 'open driver=raw,file.filename=raw.img' -c length",
         "--image-opts -c 'open -o driver=raw raw.img'", "-f raw -c 'open -r raw.img' -c length",
         "-r -c 'open -o driver=raw raw.img' -c 'write 0 1'", "-c 'open -o driver=raw -o file.locking=off raw.img' -c length",
         "-c 'open data.qcow2' -c 'open -o driver=raw raw.img' -c length -c 'close' -c length -c close",
         "-c 'open -o help data.qcow2'", "--image-opts -c 'open file.filename=raw.img,driver=raw,foo=bar'",
         "-c 'o data.qcow2' -c l -c c -c 'o overlay.qcow2' -c l -c c", "data.qcow2 -c close -c close -c 'open hole.img'",
         "data.qcow2 -c 'open nofile' -c length -c close -c 'open nofile' -c length",
         "-c 'open -o driver=raw,offset=64k,size=1k raw.img' -c 'read -P 1 0 1k' -c length -c map",
         "-c 'open -o driver=raw,offset=64k raw.img' -c length -c 'write -P 7 0 512' -c close -c 'open -o driver=raw raw.img' -c 'read -P 7 64k 512'",
         "-c 'open -d ignore -o driver=raw raw.img' -c 'write 0 64k' -c 'discard 0 64k' -c 'read -P 0xcd 0 64k'",
         "-c 'open -o backing.driver=raw,backing.file.filename=raw.img empty.qcow2' -c 'read -P 1 64k 64k' -c map",
         ("-c 'open -o backing= overlay.qcow2' -c 'read -P 0 64k 64k'", EMPTY_BACKING),
         needs=("raw.img", "hole.img", "data.qcow2"))

NODE = {"rules": ("node",)}
scripts("reopen", QCOW2,
        "reopen ; write 0 512", "reopen -r ; write 0 512", "reopen -r ; reopen -w ; write 0 512", "reopen -r -w", "reopen -rw",
        "reopen -c none ; write 0 512 ; read -P 0xcd 0 512", "reopen -c foo", "reopen -c writethrough", "reopen -c unsafe ; write 0 1",
        "reopen -o lazy-refcounts=on ; write 3M 512 ; reopen -o lazy-refcounts=off ; info", "reopen -o foo=bar", "reopen -o driver=raw",
        "reopen -o l2-cache-size=1M ; read -P 1 64k 64k", "reopen x", "reopen -Z", "reopen -w -o read-only=on",
        "reopen -c none -o cache.direct=on", "reopen -o cache.writeback=on", "reopen -c unsafe -o cache.no-flush=on",
        "reopen -o file.filename=x", "reopen -o file.locking=off", "reopen -o discard=unmap", "reopen -o detect-zeroes=on ; write -P 0 64k 64k ; map",
        "reopen -o node-name=x", "reopen -r -o lazy-refcounts=on", "reopen -w -o cache-size=1M", "reopen -o l2-cache-entry-size=3",
        "reopen -o pass-discard-request=on", "reopen -o overlap-check=all", ("reopen -o overlap-check=foo", CHOICES),
        "reopen -o l2-cache-entry-size=3 ; write 0 512 ; map", "write 0 512 ; reopen ; read -P 0xcd 0 512 ; map",
        ("write 0 1 ; reopen -o read-only=on ; write 0 1", NODE), "truncate 8M ; reopen -r ; length")
scripts("reopen raw", RAW,
        "reopen -r ; write 0 1 ; reopen -w ; write 0 1", "reopen -o offset=512 ; length", "reopen -o size=1024 ; length ; reopen ; length",
        "reopen -o offset=512 ; reopen -o size=1k ; length", "reopen -o offset=512,size=1k ; length ; read 512 512 ; read 512 513",
        "reopen -o size=10M ; length", "reopen -o offset=2M")

# ---- sleep, signals, breakpoints

scripts("sleep", RAW, "sleep 1", "sleep x", "sleep", "sleep -- -1", "sleep 1 2", "sleep 1x", "sleep 0x1", "sleep -1", "sleep 0 ; length")
scripts("signals", RAW, "sigraise", "sigraise x", "sigraise 0 ; length", "sigraise 1 2", "sigraise 1000", "sigraise -1", "length ; sigraise 15",
        "sigraise 9", "sigraise 18 ; length", "sigraise 2 ; length", ("sigraise 10", SIGNAL), "sigraise 1", "sigraise 28 ; length", "abort", "abort x", "abort ; length")
scripts("break", RAW, "break", "break a", "break a b", "break pwritev A", "resume A", "remove_break A", "remove_break", "break a b c",
        "resume", "wait_break", "wait_break A B", "resume a b", "remove_break a b", "break none A ; length")
scripts("break qcow2", QCOW2, "break write_aio A", "resume A", "remove_break A")
