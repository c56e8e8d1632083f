"""Every command of the reference with one right call and, made of it, the wrong ones: an argument left out, one that
is unknown, one of another type, one that names nothing."""

import schemas
from scripts import QCOW2, Step, script

NODE = {"execute": "blockdev-add", "arguments": {"driver": "qcow2", "node-name": "q", "file": {**QCOW2, "node-name": "f"}}}
SPARE = {"execute": "blockdev-add", "arguments": {"driver": "null-co", "node-name": "n", "size": 1048576}}
TOP = {"execute": "blockdev-add", "arguments": {
    "driver": "qcow2", "node-name": "top", "backing": "n", "file": {"driver": "file", "filename": "overlay.qcow2", "node-name": "tf"}}}
FREE = {"execute": "blockdev-add", "arguments": {
    "driver": "qcow2", "node-name": "o", "backing": None, "file": {"driver": "file", "filename": "other.qcow2", "node-name": "of"}}}
BITMAP = {"execute": "block-dirty-bitmap-add", "arguments": {"node": "q", "name": "b"}}
OTHER_BITMAP = {"execute": "block-dirty-bitmap-add", "arguments": {"node": "q", "name": "c"}}
SNAPSHOT = {"execute": "blockdev-snapshot-internal-sync", "arguments": {"device": "q", "name": "s"}}
IOTHREAD = {"execute": "object-add", "arguments": {"qom-type": "iothread", "id": "io"}}
EXPORT = {"execute": "block-export-add", "arguments": {
    "type": "vhost-user-blk", "id": "e", "node-name": "n", "addr": {"type": "unix", "path": "x.sock"}}}
NBD_SERVER = {"execute": "nbd-server-start", "arguments": {"addr": {"type": "unix", "data": {"path": "n.sock"}}}}
NBD_EXPORT = {"execute": "nbd-server-add", "arguments": {"device": "n", "name": "x"}}
RING = {"execute": "chardev-add", "arguments": {"id": "r", "backend": {"type": "ringbuf", "data": {"size": 64}}}}
NOTHING = {"type": "null", "data": {}}

# The right call of each: what there has to be, and the arguments.
RIGHT = {
    "block-dirty-bitmap-add": ([NODE], {"node": "q", "name": "b", "granularity": 65536, "persistent": False, "disabled": True}),
    "block-dirty-bitmap-clear": ([NODE, BITMAP], {"node": "q", "name": "b"}),
    "block-dirty-bitmap-disable": ([NODE, BITMAP], {"node": "q", "name": "b"}),
    "block-dirty-bitmap-enable": ([NODE, BITMAP], {"node": "q", "name": "b"}),
    "block-dirty-bitmap-merge": ([NODE, BITMAP, OTHER_BITMAP], {"node": "q", "target": "b", "bitmaps": ["c"]}),
    "block-dirty-bitmap-remove": ([NODE, BITMAP], {"node": "q", "name": "b"}),
    "block-export-add": ([SPARE], {**EXPORT["arguments"], "writable": False, "writethrough": False, "num-queues": 2,
                                   "logical-block-size": 512, "fixed-iothread": False}),
    "block-export-del": ([SPARE, EXPORT], {"id": "e", "mode": "safe"}),
    "block-set-write-threshold": ([NODE], {"node-name": "q", "write-threshold": 65536}),
    "block_resize": ([NODE], {"node-name": "q", "size": 33554432}),
    "blockdev-add": ([], {"driver": "null-co", "node-name": "n", "size": 65536, "read-only": True, "discard": "unmap",
                          "cache": {"direct": False}, "detect-zeroes": "off"}),
    "blockdev-del": ([NODE], {"node-name": "q"}),
    "blockdev-reopen": ([NODE], {"options": [{"driver": "qcow2", "node-name": "q", "file": "f", "read-only": True}]}),
    "blockdev-snapshot": ([NODE, FREE], {"node": "q", "overlay": "o"}),
    "blockdev-snapshot-delete-internal-sync": ([NODE, SNAPSHOT], {"device": "q", "name": "s", "id": "1"}),
    "blockdev-snapshot-internal-sync": ([NODE], {"device": "q", "name": "s"}),
    "blockdev-snapshot-sync": ([NODE], {"node-name": "q", "snapshot-file": "n.qcow2", "snapshot-node-name": "new",
                                        "format": "qcow2", "mode": "absolute-paths"}),
    "change-backing-file": ([SPARE, TOP], {"device": "top", "image-node-name": "top", "backing-file": "elsewhere.qcow2"}),
    "chardev-add": ([], {"id": "c", "backend": NOTHING}),
    "chardev-change": ([RING], {"id": "r", "backend": NOTHING}),
    "chardev-remove": ([RING], {"id": "r"}),
    "chardev-send-break": ([RING], {"id": "r"}),
    "nbd-server-add": ([SPARE, NBD_SERVER], {**NBD_EXPORT["arguments"], "description": "d", "writable": False}),
    "nbd-server-remove": ([SPARE, NBD_SERVER, NBD_EXPORT], {"name": "x", "mode": "safe"}),
    "nbd-server-start": ([], {**NBD_SERVER["arguments"], "max-connections": 5}),
    "nbd-server-stop": ([NBD_SERVER], {}),
    "object-add": ([], {"qom-type": "iothread", "id": "io", "poll-max-ns": 5}),
    "object-del": ([IOTHREAD], {"id": "io"}),
    "qmp_capabilities": ([], {}),
    "qom-get": ([IOTHREAD], {"path": "/objects/io", "property": "poll-max-ns"}),
    "qom-list": ([IOTHREAD], {"path": "/objects/io"}),
    "qom-list-properties": ([], {"typename": "iothread"}),
    "qom-list-types": ([], {"implements": "iothread", "abstract": False}),
    "qom-set": ([IOTHREAD], {"path": "/objects/io", "property": "poll-max-ns", "value": 9}),
    "query-block": ([NODE], {}),
    "query-block-exports": ([SPARE, EXPORT], {}),
    "query-block-jobs": ([], {}),
    "query-blockstats": ([NODE], {"query-nodes": True}),
    "query-chardev": ([RING], {}),
    "query-chardev-backends": ([], {}),
    "query-commands": ([], {}),
    "query-jobs": ([], {}),
    "query-named-block-nodes": ([NODE], {"flat": True}),
    "query-qmp-schema": ([], {}),
    "query-version": ([], {}),
    "quit": ([], {}),
    "ringbuf-read": ([RING], {"device": "r", "size": 5, "format": "utf8"}),
    "ringbuf-write": ([RING], {"device": "r", "data": "abc", "format": "utf8"}),
    "transaction": ([NODE], {"actions": [{"type": "block-dirty-bitmap-add", "data": {"node": "q", "name": "t"}}],
                             "properties": {"completion-mode": "individual"}}),
    "x-blockdev-change": ([NODE, SPARE], {"parent": "q", "node": "n"}),
    "x-blockdev-set-iothread": ([SPARE, IOTHREAD], {"node-name": "n", "iothread": "io", "force": False}),
    "x-debug-block-dirty-bitmap-sha256": ([NODE, BITMAP], {"node": "q", "name": "b"}),
    "x-debug-query-block-graph": ([NODE], {}),
}
# Arguments that name something, or one of a few.
NAMES = {"node", "node-name", "device", "name", "id", "target", "overlay", "path", "property", "typename", "implements", "parent",
         "image-node-name", "qom-type", "driver", "type", "mode", "format", "iothread", "file", "discard", "detect-zeroes"}
# Names that the call gives.
NEW = {"block-dirty-bitmap-add": {"name"}, "block-export-add": {"id"}, "blockdev-add": {"node-name"},
       "blockdev-snapshot-internal-sync": {"name"}, "chardev-add": {"id"}, "object-add": {"id"}}
# By an assertion.
ENDS_THE_REFERENCE = {("blockdev-add", "size negative"), ("blockdev-add", "size huge")}
# Whose right answer is known to differ, and what a schema comparison looks at (schemas.py).
OF_OTHERS = {"query-commands": "commands that are not here", "query-qmp-schema": "commands that are not here",
             "query-chardev-backends": "kinds that are not here"}
# (command, what is wrong): why the replies differ.
FEWER = "the types that there are"
DIFFERS = {
    ("qom-list-types", "implements left out"): FEWER,
}


def another_type(value):
    if isinstance(value, bool):
        return "on"
    if isinstance(value, int):
        return "5"
    return 5


def wrong_calls(command, arguments):
    """(what is wrong, the arguments)"""
    for key, value in arguments.items():
        yield f"{key} left out", {name: one for name, one in arguments.items() if name != key}
        yield f"{key} of another type", {**arguments, key: another_type(value)}
        yield f"{key} null", {**arguments, key: None}
        yield f"{key} a list", {**arguments, key: [[]]}
        if isinstance(value, int) and not isinstance(value, bool):
            yield f"{key} negative", {**arguments, key: -1}
            yield f"{key} huge", {**arguments, key: 2**64 - 1}
            yield f"{key} a fraction", {**arguments, key: 1.5}
        if key in NAMES and isinstance(value, str) and key not in NEW.get(command, ()):
            yield f"{key} unknown", {**arguments, key: "nope"}
            yield f"{key} empty", {**arguments, key: ""}
    yield "an argument too many", {**arguments, "zip": 1}


# An argument that may be left out makes a call that does something: it is asked for where that can be undone.
UNDO = {"block-dirty-bitmap-add": ("block-dirty-bitmap-remove", {"node": "q", "name": "b"}),
        "block-export-add": ("block-export-del", {"id": "e"}), "blockdev-add": ("blockdev-del", {"node-name": "n"}),
        "chardev-add": ("chardev-remove", {"id": "c"}), "object-add": ("object-del", {"id": "io"}),
        "nbd-server-add": ("nbd-server-remove", {"name": "x"}), "nbd-server-remove": ("nbd-server-add", NBD_EXPORT["arguments"]),
        "nbd-server-start": ("nbd-server-stop", {}),
        "transaction": ("block-dirty-bitmap-remove", {"node": "q", "name": "t"}),
        "blockdev-snapshot-delete-internal-sync": ("blockdev-snapshot-internal-sync", {"device": "q", "name": "s"})}


def add_scripts():
    for command, (needed, arguments) in RIGHT.items():
        steps = [Step(request) for request in needed]
        for what, wrong in wrong_calls(command, arguments):
            if (command, what) in ENDS_THE_REFERENCE or command == "quit" and what != "an argument too many":
                continue
            steps.append(Step({"execute": command, "arguments": wrong, "id": f"{command}: {what}"}, DIFFERS.get((command, what))))
            if command in UNDO:
                undo, with_what = UNDO[command]
                steps.append(Step({"execute": undo, "arguments": with_what}, DIFFERS.get((command, what + ", undone"))))
        if command not in ("quit", "qmp_capabilities"):
            steps.append(Step({"execute": command, "arguments": arguments}, DIFFERS.get((command, "right"), OF_OTHERS.get(command))))
        if EXPORT in needed or command == "block-export-add":
            # Who says quit is told of no event after that.
            steps.append(Step({"execute": "block-export-del", "arguments": {"id": "e"}}))
        if NBD_SERVER in needed:
            steps.append(Step({"execute": "nbd-server-stop"}))
        script(f"table: {command}", *steps)


def compare_coverage(reference):
    """Commands of the reference that the table lacks."""
    listed, = schemas.ask(reference, "query-commands")
    missing = {name for names in schemas.MISSING_COMMANDS.values() for name in names.split()}
    lacking = {one["name"] for one in listed} - missing - set(RIGHT)
    return [f"{name}: no right call" for name in sorted(lacking)]


add_scripts()
