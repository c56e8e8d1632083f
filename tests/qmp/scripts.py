"""What is said to both daemons. Every command with right and wrong arguments."""

import dataclasses


@dataclasses.dataclass
class Step:
    request: object          # a value, or bytes as they are
    differs: str = None      # why the replies differ
    ours: object = None      # what ours is then, where it is worth knowing


@dataclasses.dataclass
class Script:
    name: str
    steps: list
    negotiate: bool = True
    over_socket: bool = False


SCRIPTS = []


def script(name, *steps, **options):
    SCRIPTS.append(Script(name, [step if isinstance(step, Step) else Step(step) for step in steps], **options))


def do(command, differs=None, ours=None, **arguments):
    request = {"execute": command}
    if arguments:
        request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
    return Step(request, differs, ours)


def error(text, of="GenericError"):
    return {"error": {"class": of, "desc": text}}


# ---- The session

script("negotiation",
       do("query-version"), do("nope"), {"execute": 5}, {"foo": 1},
       do("qmp_capabilities", enable=["nope"]), do("qmp_capabilities", enable="oob"), do("qmp_capabilities", foo=1),
       do("qmp_capabilities"), do("qmp_capabilities"), do("query-version"), negotiate=False)

script("requests",
       {"execute": "query-version", "id": 5}, {"execute": "query-version", "id": {"a": [1, None, "\u00e9"]}},
       {"execute": "query-version", "id": None}, {"execute": "query-version", "id": 1.5},
       {"execute": "query-version", "id": 18446744073709551615}, {"execute": "nope", "id": 7}, {"id": 3},
       {"foo": 1}, {"execute": "query-version", "foo": 1, "id": 1}, {"arguments": {}}, [1, 2], 5, "x", None, True,
       {"execute": "query-version", "arguments": 5}, {"execute": "query-version", "arguments": []},
       {"execute": "query-version", "arguments": None}, {"execute": "query-version", "arguments": {"x": 5}},
       {"execute": None}, {"execute": "a\u0000b"}, {"exec-oob": "query-version"},
       {"execute": "query-jobs"}, {"execute": "query-block-jobs"})

SOUND = {"execute": "query-jobs", "id": "sound"}

script("broken",
       b"{]}", b"[}", b"}", b"]", b"@@@ {\"execute\": \"query-jobs\"}", b"\"abc", b"\"a\\x\"", b"{\"a\":1,}",
       b"{\"a\" 1}", b"{\"a\":1 \"b\":2}", b"{1:2}", b"[1,]", b"[,]", b"tru", b"nul l",
       # What a broken number takes along of the next line differs; an object is always heard.
       b"-", SOUND, b"01", SOUND, b"1.", SOUND, b"1e", SOUND,
       b"1e5", b".5", b"#x", b"\xff", b"\x01", b"%d", b"'a'", b"{\"a\":}", b"{\"a\"}", b"{\"a\":1}}",
       b"{'execute': 'query-jobs'}", b"{\"execute\":\"query-jobs\"}{\"execute\":\"query-jobs\"}",
       b"{\"execute\":\"query-jobs\",\"execute\":\"x\"}", b"{\"a\":\"\\ud800\"}", b"[1] 2 {\"execute\":\"query-jobs\"}",
       b"abc def", b"\x00", b"/* x */", SOUND)

script("out of band",
       do("qmp_capabilities", enable=["oob"]), {"exec-oob": "query-version", "id": 1}, {"exec-oob": "nope", "id": 1},
       {"exec-oob": "query-version", "execute": "query-version"}, {"exec-oob": 5},
       {"exec-oob": "query-version", "zip": 1}, {"execute": "query-version", "id": 3}, do("query-jobs"),
       negotiate=False, over_socket=True)

# ---- Nodes

QCOW2 = {"driver": "file", "filename": "disk.qcow2"}
EARLIER = "options are checked before children are opened"

script("blockdev-add refused",
       do("blockdev-add"), do("blockdev-add", driver="qcow2"), do("blockdev-add", driver="qcow2", node_name="a"),
       do("blockdev-add", node_name="a"), do("blockdev-add", driver="nope", node_name="a"),
       do("blockdev-add", driver=5, node_name="a"), do("blockdev-add", driver="qcow2", node_name=5, file="x"),
       do("blockdev-add", driver="qcow2", node_name="a", file=5),
       do("blockdev-add", driver="qcow2", node_name="a", file=None),
       do("blockdev-add", driver="qcow2", node_name="a", file={"driver": "nope"}),
       do("blockdev-add", driver="qcow2", node_name="a", file={"driver": "file"}),
       do("blockdev-add", driver="qcow2", node_name="a", file={"driver": "file", "filename": "none.qcow2"}),
       do("blockdev-add", driver="qcow2", node_name="a", file={**QCOW2, "aio": "x"}),
       do("blockdev-add", driver="qcow2", node_name="a", file={**QCOW2, "zip": "x"}),
       do("blockdev-add", driver="qcow2", node_name="a", file={**QCOW2, "locking": True}),
       do("blockdev-add", driver="qcow2", node_name="a", cache={"direct": 3}, file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", cache=3, file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", discard="maybe", file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", **{"detect-zeroes": "unmap"}, file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", force_share=True, file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", l2_cache_size=1.5, file="nope"),
       do("blockdev-add", EARLIER, driver="qcow2", node_name="a", l2_cache_size=-5, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", l2_cache_size=2**64, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", **{"overlap-check": 5}, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", **{"overlap-check": "nope"}, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", **{"overlap-check": {"template": "all", "x": 1}}, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", encrypt={"format": "luks", "x": 1}, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", backing=5, file="nope"),
       do("blockdev-add", driver="qcow2", node_name="a", backing="nope", file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", file="nope"),
       do("blockdev-add", driver="qcow2", file=QCOW2), do("blockdev-add", driver="qcow2", node_name="a b", file=QCOW2),
       do("blockdev-add", driver="qcow2", node_name="a", file={"driver": "file", "filename": "plain.raw"}),
       do("blockdev-add", driver="raw", node_name="a", size=5, file={"driver": "null-co"}),
       do("blockdev-add", driver="raw", node_name="a", offset=2**62, file={"driver": "null-co"}),
       do("blockdev-add", driver="blkdebug", node_name="a", image="f", max_transfer=2**32),
       do("blockdev-add", driver="blkdebug", node_name="a", image={"driver": "null-co"},
          inject_error=[{"event": "nope"}]),
       do("blockdev-add", "the header is looked at before the secret", driver="luks", node_name="a", key_secret="nope",
          file={"driver": "file", "filename": "plain.raw"}),
       do("query-named-block-nodes"))

script("nodes",
       do("blockdev-add", driver="file", node_name="f", filename="disk.qcow2"),
       do("blockdev-add", driver="file", node_name="f", filename="disk.qcow2"),
       do("blockdev-add", driver="qcow2", node_name="q", file="f"), do("blockdev-del", node_name="f"),
       do("blockdev-del"), do("blockdev-del", node_name=5), do("blockdev-del", node_name="nope"),
       do("query-named-block-nodes"), do("query-named-block-nodes", flat=True), do("query-named-block-nodes", flat=1),
       do("query-block"), do("query-block", x=1), do("query-blockstats"), do("query-blockstats", query_nodes=True),
       do("query-blockstats", query_nodes="x"), do("x-debug-query-block-graph"),
       do("blockdev-add", driver="qcow2", node_name="q2", file="f"),
       do("blockdev-del", node_name="q"), do("blockdev-del", node_name="q"), do("blockdev-del", node_name="f"),
       do("blockdev-add", driver="qcow2", node_name="ro", read_only=True, file=QCOW2, cache={"no-flush": True},
          **{"detect-zeroes": "on"}),
       do("query-named-block-nodes", flat=True), do("blockdev-del", node_name="ro"),
       do("blockdev-add", driver="qcow2", node_name="o", file={"driver": "file", "filename": "overlay.qcow2"}),
       do("query-named-block-nodes", flat=True), do("query-named-block-nodes"), do("x-debug-query-block-graph"),
       do("query-blockstats", query_nodes=True),
       do("blockdev-del", node_name="o"),
       do("blockdev-add", driver="qcow2", node_name="o", file={"driver": "file", "filename": "overlay.qcow2"},
          backing={"driver": "qcow2", "node-name": "b", "read-only": True, "file": QCOW2}),
       do("blockdev-del", node_name="b"), do("blockdev-del", node_name="o"),
       do("blockdev-add", driver="null-co", node_name="n", size=1048576, read_only=True, discard="unmap"),
       do("blockdev-add", driver="raw", node_name="r", file="n"), do("blockdev-del", node_name="n"),
       do("blockdev-add", driver="raw", node_name="r", read_only=True, file="n"),
       do("block_resize", node_name="r", size=65536), do("block_resize", node_name="n", size=65536),
       do("x-debug-query-block-graph"), do("blockdev-del", node_name="r"), do("blockdev-del", node_name="n"),
       do("query-named-block-nodes"))

script("filters",
       do("blockdev-add", driver="blkdebug", node_name="d", image={"driver": "null-co", "node-name": "n", "size": 65536},
          inject_error=[{"event": "write_aio", "errno": 5, "once": True}], set_state=[{"event": "read_aio", "new_state": 2}]),
       do("blockdev-add", driver="copy-on-read", node_name="c", file="d"), do("x-debug-query-block-graph"),
       do("blockdev-del", node_name="d"), do("blockdev-del", node_name="c"), do("blockdev-del", node_name="d"))

script("block_resize",
       do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"}),
       do("block_resize"), do("block_resize", size=5), do("block_resize", node_name="q"),
       do("block_resize", node_name="q", size=-1), do("block_resize", node_name="q", size=5),
       do("block_resize", node_name="q", size=1.5), do("block_resize", node_name="q", size="1M"),
       do("block_resize", node_name="q", size=1048576), do("block_resize", node_name="q", size=104857600),
       do("block_resize", node_name="nope", size=104857600), do("block_resize", device="nope", size=104857600),
       do("block_resize", device="q", node_name="q", size=104857600),
       do("block_resize", node_name="f", size=104857600), do("block_resize", node_name="q", size=2**63 - 1),
       do("query-named-block-nodes", flat=True))

# ---- Bitmaps

BITMAPS = [do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"}),
           do("block-dirty-bitmap-add", node="q", name="b1"),
           do("block-dirty-bitmap-add", node="q", name="b2", granularity=4096, persistent=True, disabled=True)]

script("bitmaps", *BITMAPS,
       do("block-dirty-bitmap-add"), do("block-dirty-bitmap-add", node="q"), do("block-dirty-bitmap-add", node="q", name=""),
       do("block-dirty-bitmap-add", node="q", name="b1"), do("block-dirty-bitmap-add", node="q", name="b2"),
       do("block-dirty-bitmap-add", node="q", name="b2", persistent=True),
       do("block-dirty-bitmap-add", node="q", name="x" * 1023), do("block-dirty-bitmap-remove", node="q", name="x" * 1023),
       do("block-dirty-bitmap-add", node="q", name="x" * 1025, persistent=True),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=1000),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=256),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=0),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=-1),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=2**32),
       do("block-dirty-bitmap-add", node="q", name="b3", granularity=4096, persistent=1),
       do("block-dirty-bitmap-add", node="z", name="b3", granularity=512),
       do("block-dirty-bitmap-add", node="f", name="b3", persistent=True),
       do("block-dirty-bitmap-add", node="f", name="b3"),
       do("block-dirty-bitmap-clear", node="q", name="b2"), do("block-dirty-bitmap-clear", node="q", name="nope"),
       do("block-dirty-bitmap-clear", node="nope", name="nope"), do("block-dirty-bitmap-clear", node="q"),
       do("block-dirty-bitmap-enable", node="q", name="b2"), do("block-dirty-bitmap-enable", node="q", name="b2"),
       do("block-dirty-bitmap-enable", node="q", name="nope"), do("block-dirty-bitmap-enable", node="nope", name="nope"),
       do("block-dirty-bitmap-disable", node="q", name="b1"), do("block-dirty-bitmap-disable", node="q", name="nope"),
       do("block-dirty-bitmap-disable", node="nope", name="b1"), do("query-named-block-nodes", flat=True),
       do("block-dirty-bitmap-remove", node="q", name="nope"), do("block-dirty-bitmap-remove", node="nope", name="b1"),
       do("block-dirty-bitmap-remove", node="q", name="b1"), do("block-dirty-bitmap-remove", node="q", name="b1"),
       do("block-dirty-bitmap-remove", node="q", name="b2"), do("query-named-block-nodes", flat=True))

# The reference ends where there is nothing to merge.
script("bitmap merges", *BITMAPS,
       do("blockdev-add", driver="qcow2", node_name="o", file={"driver": "file", "filename": "small.qcow2"}),
       do("block-dirty-bitmap-add", node="o", name="ob"),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=["b2"]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=["b3"]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=[{"node": "q", "name": "b2"}]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=[{"node": "o", "name": "ob"}]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=[{"node": "z", "name": "ob"}]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=[5]),
       do("block-dirty-bitmap-merge", node="q", target="b1", bitmaps=[{"node": "q"}]),
       do("block-dirty-bitmap-merge", node="q", target="b9", bitmaps=["b1"]),
       do("block-dirty-bitmap-merge", node="z", target="b9", bitmaps=["b1"]),
       do("block-dirty-bitmap-merge", node="q", target="b1"),
       do("query-named-block-nodes", "stored bitmaps are marked in use by the first write, not by opening", flat=True))

# ---- Snapshots

script("internal snapshots",
       do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"}),
       do("blockdev-add", driver="raw", node_name="r", file={"driver": "file", "filename": "plain.raw"}),
       do("blockdev-snapshot-internal-sync"), do("blockdev-snapshot-internal-sync", device="q"),
       do("blockdev-snapshot-internal-sync", device="q", name="s1"),
       do("blockdev-snapshot-internal-sync", device="q", name="s1"),
       do("blockdev-snapshot-internal-sync", device="q", name=""),
       do("blockdev-snapshot-internal-sync", device="f", name="x"),
       do("blockdev-snapshot-internal-sync", device="r", name="x"),
       do("blockdev-snapshot-internal-sync", device="nope", name="x"), do("query-named-block-nodes", flat=True),
       do("blockdev-snapshot-delete-internal-sync", device="q", name="x"),
       do("blockdev-snapshot-delete-internal-sync", device="q"),
       do("blockdev-snapshot-delete-internal-sync", device="nope"),
       do("blockdev-snapshot-delete-internal-sync", device="f", name="r"),
       do("blockdev-snapshot-delete-internal-sync", device="q", id="7", name="s1"),
       do("blockdev-snapshot-delete-internal-sync", device="q", id="7"),
       do("blockdev-snapshot-delete-internal-sync", device="q", id="1", name="s1"),
       do("blockdev-snapshot-delete-internal-sync", device="q", id="1"),
       do("query-named-block-nodes", flat=True))

NAMED = "an image that was told to have no backing file is named by how it was opened"
STAYS_WRITABLE = "what an overlay was put on stays as writable as it was opened"



def overlay(**more):
    wish = {"node_name": "q", "snapshot_file": "n.qcow2", "snapshot_node_name": "o", **more}
    return do("blockdev-snapshot-sync", **{key: value for key, value in wish.items() if value is not None})


script("overlays",
       do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"}),
       do("blockdev-add", driver="qcow2", node_name="o", backing=None,
          file={"driver": "file", "filename": "other.qcow2", "node-name": "of"}),
       do("blockdev-add", driver="raw", node_name="r", file={"driver": "file", "filename": "plain.raw"}),
       do("blockdev-snapshot"), do("blockdev-snapshot", node="q"), do("blockdev-snapshot", node="q", overlay="nope"),
       do("blockdev-snapshot", node="nope", overlay="o"), do("blockdev-snapshot", node="q", overlay="q"),
       do("blockdev-snapshot", node="q", overlay="f"), do("blockdev-snapshot", node="q", overlay="r"),
       do("blockdev-snapshot", node="q", overlay="o"), do("blockdev-snapshot", node="q", overlay="o"),
       do("blockdev-snapshot", node="r", overlay="o"), do("blockdev-snapshot", node="o", overlay="q"),
       do("query-named-block-nodes", STAYS_WRITABLE, flat=True), do("x-debug-query-block-graph", STAYS_WRITABLE),
       do("blockdev-del", node_name="q"), do("blockdev-del", node_name="o"), do("blockdev-del", node_name="q"))

script("overlays made by the daemon",
       do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"}),
       do("blockdev-snapshot-sync"), do("blockdev-snapshot-sync", snapshot_file="n.qcow2", snapshot_node_name="o"),
       overlay(snapshot_node_name=None), overlay(snapshot_node_name="q"), overlay(snapshot_node_name="a b"),
       overlay(snapshot_file="/nope/n.qcow2"), overlay(snapshot_file="none.qcow2", mode="existing"),
       overlay(mode="nope"), overlay(format="nope"), overlay(format="raw"), overlay(snapshot_file="disk.qcow2"),
       do("block-export-add", type="vhost-user-blk", id="e", node_name="q", writable=True,
          addr={"type": "unix", "path": "x.sock"}),
       do("transaction", actions=[{"type": "blockdev-snapshot-sync",
                                   "data": {"node-name": "q", "snapshot-file": "n2.qcow2", "snapshot-node-name": "o"}},
                                  {"type": "abort", "data": {}}]),
       do("query-block-exports"), do("x-debug-query-block-graph"),
       overlay(), do("query-block-exports"), do("x-debug-query-block-graph", STAYS_WRITABLE),
       do("blockdev-del", node_name="o"), do("blockdev-del", node_name="q"),
       do("block-export-del", id="e"), do("x-debug-query-block-graph", STAYS_WRITABLE),
       overlay(snapshot_file="n3.qcow2"), do("blockdev-del", node_name="q"), do("query-named-block-nodes"))

script("transaction", *BITMAPS,
       do("blockdev-add", driver="qcow2", node_name="o", backing=None,
          file={"driver": "file", "filename": "other.qcow2", "node-name": "of"}),
       do("transaction"), do("transaction", actions=[]), do("transaction", actions=5), do("transaction", actions=[5]),
       do("transaction", actions=[{"type": "abort"}]), do("transaction", actions=[{"type": "abort", "data": {}}]),
       do("transaction", actions=[{"type": "nope", "data": {}}]),
       do("transaction", actions=[{"type": "block-dirty-bitmap-add", "data": {"node": "q"}}]),
       do("transaction", actions=[{"type": "block-dirty-bitmap-add", "data": {"node": "q", "name": "t1"}},
                                  {"type": "abort", "data": {}}]),
       do("transaction", actions=[{"type": "block-dirty-bitmap-add", "data": {"node": "q", "name": "t1"}},
                                  {"type": "block-dirty-bitmap-disable", "data": {"node": "q", "name": "t1"}}]),
       do("transaction", actions=[{"type": "block-dirty-bitmap-clear", "data": {"node": "q", "name": "b1"}},
                                  {"type": "block-dirty-bitmap-enable", "data": {"node": "q", "name": "b2"}},
                                  {"type": "block-dirty-bitmap-remove", "data": {"node": "q", "name": "t1"}},
                                  {"type": "block-dirty-bitmap-merge",
                                   "data": {"node": "q", "target": "b1", "bitmaps": ["none"]}}]),
       do("query-named-block-nodes", NAMED, flat=True),
       do("transaction", actions=[{"type": "blockdev-snapshot-internal-sync", "data": {"device": "q", "name": "s"}},
                                  {"type": "abort", "data": {}}]),
       do("transaction", actions=[{"type": "blockdev-snapshot", "data": {"node": "q", "overlay": "o"}},
                                  {"type": "abort", "data": {}}]),
       do("x-debug-query-block-graph"), do("query-named-block-nodes", NAMED, flat=True),
       do("transaction", properties={"completion-mode": "individual"},
          actions=[{"type": "block-dirty-bitmap-remove", "data": {"node": "q", "name": "t1"}}]),
       do("transaction", properties={"completion-mode": "grouped"},
          actions=[{"type": "block-dirty-bitmap-remove", "data": {"node": "q", "name": "b1"}}]),
       do("transaction", properties={"completion-mode": "nope"}, actions=[]),
       do("transaction", properties={"completion-mode": "grouped"}, actions=[]))

# ---- Objects and the rest

SECRET = "a secret's bytes are not given away"

script("objects",
       do("object-add"), do("object-add", qom_type="secret"), do("object-add", qom_type="secret", id="s"),
       do("object-add", qom_type="secret", id="s", data="x"), do("object-add", qom_type="secret", id="s", data="x"),
       do("object-add", qom_type="secret", id="1s", data="x"), do("object-add", qom_type="nope", id="x"),
       do("object-add", qom_type="secret", id="s2", data="x", file="y"),
       do("object-add", qom_type="secret", id="s2", data=5),
       do("object-add", qom_type="secret", id="s2", data="!", format="base64"),
       do("object-add", qom_type="secret", id="s2", data="x", format="x"),
       do("object-add", qom_type="secret", id="s2", data="x", zip=1),
       do("object-add", qom_type="iothread", id="io", **{"poll-max-ns": -1}),
       do("object-add", qom_type="iothread", id="io", **{"poll-max-ns": "5"}),
       do("object-add", qom_type="iothread", id="io", **{"poll-max-ns": 5}),
       do("object-add", qom_type="throttle-group", id="t", limits={"iops-total": 5, "iops-read": 4}),
       do("object-add", qom_type="throttle-group", id="t", limits={"iops-total": 5}),
       do("object-add", qom_type="throttle-group", id="t3", limits={"iops-total": -5}),
       do("object-add", qom_type="throttle-group", id="t3", limits={"nope": 5}),
       do("object-add", qom_type="throttle-group", id="t2", **{"x-iops-total": 5}),
       do("qom-list"), do("qom-list", "no character devices in the tree", path="/"), do("qom-list", path="/objects"),
       do("qom-list", path="/objects/io"), do("qom-list", SECRET, path="/objects/s"), do("qom-list", path="/objects/t"),
       do("qom-list", path="/nope"), do("qom-list", path="io"),
       do("qom-get", path="/objects/io", property="poll-max-ns"), do("qom-get", path="/objects/io", property="type"),
       do("qom-get", path="/objects/io", property="nope"), do("qom-get", path="/objects/nope", property="nope"),
       do("qom-get", SECRET, path="/objects/s", property="data", ours=error("Property 'secret.data' not found")),
       do("qom-get", path="/objects/s", property="format"), do("qom-get", path="/objects/s", property="loaded"),
       do("qom-get", path="/objects/t", property="limits"), do("qom-get", path="/objects/t", property="x-iops-total"),
       do("qom-get", path="/objects", property="io"), do("qom-get", path="/", property="objects"),
       do("object-del"), do("object-del", id="nope"), do("object-del", id="s"), do("object-del", id="s"),
       do("qom-list", path="/objects"))


def unix(path, **more):
    return {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path}}, **more}}


script("character devices",
       do("query-chardev"), do("query-chardev-backends", "sockets, standard input and output, and nothing: no others"),
       do("chardev-add"), do("chardev-add", id="c"), do("chardev-add", id="c", backend={"type": "null"}),
       do("chardev-add", id="c", backend={"type": "null", "data": {}}),
       do("chardev-add", id="c", backend={"type": "null", "data": {}}),
       do("chardev-add", id="c d", backend={"type": "null", "data": {}}),
       do("chardev-add", id="s1", backend=unix("s1.sock", server=True, wait=False)),
       do("chardev-add", id="s3", backend=unix("nope.sock", server=False)),
       do("chardev-add", id="s4", backend=unix("/nope/nope.sock", server=True, wait=False)),
       do("chardev-add", id="s5", backend={"type": "nope", "data": {}}),
       do("chardev-add", id="s6", backend=unix("s6.sock", server=True, wait=False, reconnect=5)),
       do("chardev-add", id="s7", backend=unix("x" * 200, server=True, wait=False)),
       do("query-chardev"), do("chardev-remove", id="c"), do("chardev-remove", id="s1"),
       do("chardev-remove", id="m"), do("chardev-remove", id="c"), do("chardev-remove"), do("query-chardev"))

NO_TYPES = "vhost-user-blk and nbd are the kinds of exports"
NO_DRIVER = error("No driver found for the requested export type")



def vhost(differs=None, ours=None, node_name="n", addr=None, **more):
    return do("block-export-add", differs, ours, type="vhost-user-blk", id="e", node_name=node_name,
              addr=addr or {"type": "unix", "path": "x.sock"}, **more)


script("exports",
       do("block-export-add"), do("block-export-add", type="nbd"), do("block-export-add", type="nope", id="e", node_name="q"),
       do("block-export-add", type="nbd", id="e", node_name="q"),
       do("block-export-add", type="vhost-user-blk", id="e", node_name="q"),
       do("block-export-add", type="vhost-user-blk", id="e", node_name="q", num_queues=70000,
          addr={"type": "unix", "path": "x.sock"}),
       do("block-export-add", type="vhost-user-blk", id="e e", node_name="q", addr={"type": "unix", "path": "x.sock"}),
       do("block-export-add", NO_TYPES, NO_DRIVER, type="fuse", id="e", node_name="q", mountpoint="x"),
       do("blockdev-add", driver="null-co", node_name="n", size=1048576),
       do("blockdev-add", driver="null-co", node_name="r", size=1048576, read_only=True),
       vhost(node_name="q"), vhost(num_queues=0), vhost(logical_block_size=1000),
       vhost(logical_block_size=2**32 + 512), vhost(node_name="r", writable=True), vhost(iothread="nope"),
       vhost("words", addr={"type": "unix", "path": "/nope/x.sock"}),
       vhost(addr={"type": "inet", "host": "127.0.0.1", "port": "1"}),
       vhost("the number is what is wrong", error("File descriptor '99' is not a socket"), addr={"type": "fd", "str": "99"}),
       vhost(writable=True), vhost(), do("query-block-exports"), do("blockdev-del", node_name="n"),
       do("x-debug-query-block-graph"), do("block-export-del", id="e", mode="nope"), do("block-export-del", id="e"),
       do("query-block-exports"), vhost(), do("block-export-del", id="e", mode="hard"),
       vhost(), do("block_resize", node_name="n", size=512), do("block-export-del", id="e"), do("block-export-del"), do("block-export-del", id="f"), do("block-export-del", id="e", mode="nope"),
       do("query-block-exports"))
