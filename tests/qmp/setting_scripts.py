"""What is said to both daemons of nodes and objects that are there: reopened, watched, changed."""

from scripts import NAMED, QCOW2, SECRET, do, error, script, unix

FILE = {"driver": "file", "node-name": "f", "filename": "disk.qcow2"}
DISK = {"driver": "qcow2", "node-name": "q", "file": "f"}
ADD = [do("blockdev-add", driver="qcow2", node_name="q", file={**QCOW2, "node-name": "f"})]
NODES = do("query-named-block-nodes", flat=True)


def reopen(*options, differs=None, ours=None):
    return do("blockdev-reopen", differs, ours, options=list(options))


def q(**more):
    return {**DISK, **{key.replace("_", "-"): value for key, value in more.items()}}


def f(**more):
    return {**FILE, **{key.replace("_", "-"): value for key, value in more.items()}}


GOES_BACK = "what went along with its parent goes back with it"
NAMED_ONCE = "a node is told once what it is to be"
WORDS = "words"
CACHES = [{"l2_cache_size": 1048576}, {"l2_cache_size": 1}, {"l2_cache_size": 0}, {"l2_cache_size": "1"},
          {"cache_size": 1048576}, {"cache_size": 1048576, "l2_cache_size": 1048577},
          {"cache_size": 1048576, "refcount_cache_size": 1048577}, {"refcount_cache_size": 1048576}, {"refcount_cache_size": 1},
          {"cache_size": 1048576, "l2_cache_size": 65536, "refcount_cache_size": 65536}, {"l2_cache_entry_size": 4096},
          {"l2_cache_entry_size": 512}, {"l2_cache_entry_size": 100}, {"l2_cache_entry_size": 131072}, {"l2_cache_entry_size": 0},
          {"cache_clean_interval": 5}, {"cache_clean_interval": 0}, {"cache_clean_interval": 2**32},
          {"lazy_refcounts": True}, {"overlap_check": {"template": "none", "main-header": True}}, {"pass_discard_snapshot": False},
          {"pass_discard_other": True}]


def fixed(option):
    return error(f"Cannot change the option '{option}'")


script("blockdev-reopen refused", *ADD,
       do("blockdev-reopen"), do("blockdev-reopen", options=5), reopen(5), reopen({}), reopen({"driver": "qcow2"}),
       reopen({"driver": "qcow2", "file": "f"}), reopen({"driver": "qcow2", "node-name": "z", "file": "f"}),
       reopen({"driver": "raw", "node-name": "q", "file": "f"}), reopen({"driver": "qcow2", "node-name": "q"}),
       reopen(q(zip=1)), reopen(q(discard="maybe")), reopen(q(read_only="x")), reopen(q(overlap_check="bogus")),
       reopen(q(detect_zeroes="unmap")), reopen(q(force_share=True)), reopen(q(force_share=True, read_only=True)),
       reopen(q(file="q")), reopen(q(file="nope")), reopen(q(file=None)), reopen(q(backing="nope")),
       reopen(q(file={"driver": "file", "filename": "other.qcow2"})),
       reopen(q(file={"driver": "file", "filename": "disk.qcow2", "node-name": "zz"})),
       reopen(q(file={"driver": "null-co"}), differs=WORDS, ours=fixed("driver")),
       reopen(q(backing={})), reopen(q(backing={"driver": "null-co"})),
       reopen(f(filename="other.qcow2")), reopen(f(filename="./disk.qcow2")), reopen(f(locking="off")),
       reopen(f(aio="native")), reopen({"driver": "file", "node-name": "f"}),
       reopen(q(read_only=True), {"driver": "qcow2", "node-name": "nope", "file": "f"}), NODES)

script("blockdev-reopen", *ADD,
       reopen(q()), reopen(f()), reopen(q(detect_zeroes="on")), NODES,
       reopen(q(detect_zeroes="unmap", discard="unmap")), NODES, reopen(q()), NODES,
       reopen(f(cache={"direct": True})), NODES, reopen(f()), NODES,
       reopen(f(cache={"no-flush": True})), NODES, reopen(f()), reopen(f(auto_read_only=True)), NODES,
       reopen(q(lazy_refcounts=True)), reopen(q(overlap_check="all")), reopen(q(pass_discard_request=True)), reopen(q()),
       *(reopen(q(**options)) for options in CACHES), NODES, reopen(q()),
       reopen(q(), q(), differs=NAMED_ONCE, ours=error("Node 'q' is named twice")), NODES,
       reopen(q(file={"driver": "file", "filename": "disk.qcow2"})))

script("blockdev-reopen and a child of its own", *ADD,
       do("block-dirty-bitmap-add", node="q", name="kept", persistent=True), do("block-dirty-bitmap-add", node="q", name="b"),
       reopen(q(read_only=True)), NODES, reopen(q(read_only=True, file=dict(QCOW2))), NODES,
       do("block-dirty-bitmap-add", "an image that may only be read takes no bitmap", node="q", name="c", persistent=True),
       do("block_resize", node_name="q", size=33554432),
       reopen(q(), differs=GOES_BACK, ours={"return": {}}), do("blockdev-del", node_name="q"))

script("blockdev-reopen and a node of its own",
       do("blockdev-add", driver="file", node_name="f", filename="disk.qcow2"), do("blockdev-add", driver="qcow2", node_name="q", file="f"),
       reopen(f(read_only=True)), reopen(q(read_only=True)), NODES, reopen(f(read_only=True)), NODES, reopen(q()), NODES,
       do("block_resize", node_name="q", size=33554432), reopen(f(), q()), NODES,
       do("block_resize", node_name="q", size=33554432),
       reopen(q(read_only=True), f(read_only=True)), NODES, reopen(q(), f()), NODES,
       do("block-export-add", type="vhost-user-blk", id="e", node_name="q", writable=True,
          addr={"type": "unix", "path": "x.sock"}),
       reopen(q(read_only=True)), reopen(q(read_only=True), f(read_only=True)), NODES,
       reopen(q(detect_zeroes="on")), do("block-export-del", id="e"), reopen(q(read_only=True)), NODES,
       do("x-debug-query-block-graph"))

OVERLAY = {"driver": "qcow2", "node-name": "o", "file": "of"}
BASE = {"driver": "qcow2", "node-name": "b", "read-only": True, "file": {"driver": "file", "filename": "disk.qcow2", "node-name": "bf"}}
KEPT = {"driver": "qcow2", "node_name": "b", "read_only": True,
        "file": {"driver": "file", "filename": "disk.qcow2", "node-name": "bf"}}

script("blockdev-reopen and backing files",
       do("blockdev-add", driver="qcow2", node_name="o", backing=BASE,
          file={"driver": "file", "filename": "overlay.qcow2", "node-name": "of"}),
       reopen(OVERLAY), reopen({**OVERLAY, "backing": "b"}), reopen({**OVERLAY, "backing": None}),
       do("query-named-block-nodes", NAMED, flat=True), reopen(OVERLAY), reopen({**OVERLAY, "backing": "b"}),
       do("blockdev-add", **KEPT), reopen({**OVERLAY, "backing": "b"}), do("x-debug-query-block-graph"),
       do("query-named-block-nodes", flat=True),
       reopen({**OVERLAY, "backing": "o"}), do("blockdev-add", driver="null-co", node_name="n", size=16777216),
       reopen({**OVERLAY, "backing": "n"}), do("x-debug-query-block-graph"),
       do("query-named-block-nodes", "the order of what a name lists", flat=True),
       reopen({**OVERLAY, "backing": "n", "read-only": True}), do("blockdev-del", node_name="n"),
       do("blockdev-del", node_name="b"), reopen({**OVERLAY, "backing": "n", "read-only": True}, {**OVERLAY, "node-name": "z"}),
       reopen({**OVERLAY, "backing": {"driver": "null-co", "node-name": "n", "size": 16777216}}),
       reopen({**OVERLAY, "backing": None, "read-only": True}), do("blockdev-del", node_name="n"), do("blockdev-del", node_name="o"),
       NODES)

WINDOWS = [{"size": 512}, {"size": 512, "offset": 512}, {"offset": 512}, {"offset": 1048576}, {"offset": 1048577}, {"offset": -1},
           {"size": 100}, {"size": 2097152}, {"offset": 100, "size": 512}, {"size": 0}]

script("blockdev-reopen of other drivers",
       do("blockdev-add", driver="null-co", node_name="n", size=1048576), do("blockdev-add", driver="raw", node_name="r", file="n"),
       do("blockdev-add", driver="null-co", node_name="n2", size=1048576),
       reopen({"driver": "null-co", "node-name": "n", "size": 1048576, "read-only": True}),
       reopen({"driver": "null-co", "node-name": "n", "size": 1048576}),
       reopen({"driver": "null-co", "node-name": "n", "size": 5}), reopen({"driver": "null-co", "node-name": "n"}),
       reopen({"driver": "null-co", "node-name": "n", "size": 1048576, "read-zeroes": True}),
       reopen({"driver": "raw", "node-name": "r", "file": "n"}),
       *(reopen({"driver": "raw", "node-name": "r", "file": "n", **window}) for window in WINDOWS),
       reopen({"driver": "raw", "node-name": "r", "file": "n"}),
       do("query-named-block-nodes", "whether nothing is dirty", flat=True),
       reopen({"driver": "raw", "node-name": "r", "file": "n", "backing": "n"}),
       reopen({"driver": "raw", "node-name": "r", "file": "n2"}), do("x-debug-query-block-graph"),
       do("blockdev-add", driver="blkdebug", node_name="d", image="n"),
       reopen({"driver": "blkdebug", "node-name": "d", "image": "n"}),
       reopen({"driver": "blkdebug", "node-name": "d", "image": "n2"}),
       reopen({"driver": "blkdebug", "node-name": "d", "image": "n", "align": 512}),
       do("blockdev-add", driver="copy-on-read", node_name="c", file="n"),
       reopen({"driver": "copy-on-read", "node-name": "c", "file": "n"}))

script("write thresholds", *ADD,
       do("block-set-write-threshold"), do("block-set-write-threshold", node_name="q"),
       do("block-set-write-threshold", node_name="nope", write_threshold=5),
       do("block-set-write-threshold", node_name="q", write_threshold="5"),
       do("block-set-write-threshold", node_name="q", write_threshold=1.5),
       do("block-set-write-threshold", node_name="q", write_threshold=5, x=1),
       do("block-set-write-threshold", node_name="q", write_threshold=-5), NODES,
       do("block-set-write-threshold", node_name="q", write_threshold=2**64 - 1), NODES,
       do("block-set-write-threshold", node_name="q", write_threshold=65536), NODES,
       do("block-set-write-threshold", node_name="f", write_threshold=4096), NODES,
       do("block-set-write-threshold", node_name="q", write_threshold=0), NODES)


def sha256(**arguments):
    return do("x-debug-block-dirty-bitmap-sha256", **arguments)


script("bitmap checksums", *ADD,
       do("blockdev-add", driver="qcow2", node_name="s", file={"driver": "file", "filename": "small.qcow2"}),
       sha256(), sha256(node="q"), sha256(node="q", name="b"), sha256(node="nope", name="b"), sha256(node="q", name=5),
       do("block-dirty-bitmap-add", node="q", name="b"), sha256(node="q", name="b"),
       do("block-dirty-bitmap-add", node="q", name="fine", granularity=512), sha256(node="q", name="fine"),
       do("block-dirty-bitmap-add", node="q", name="p", granularity=512, persistent=True), sha256(node="q", name="p"),
       do("block-dirty-bitmap-add", node="s", name="few"), sha256(node="s", name="few"), sha256(node="s", name="kept"),
       do("block-dirty-bitmap-add", node="s", name="one", granularity=2**20), sha256(node="s", name="one"))

LOADED = "a secret is what it was when it was made"


def qom_set(path=None, name=None, value=None, **more):
    said = {"path": path, "property": name, "value": value}
    return do("qom-set", **{key: one for key, one in said.items() if one is not None}, **more)


script("properties of objects",
       do("object-add", qom_type="iothread", id="io"), do("object-add", qom_type="secret", id="s", data="x"),
       do("object-add", qom_type="throttle-group", id="t"),
       qom_set(), qom_set("/objects/io"), qom_set("/objects/io", "poll-max-ns"), qom_set("/objects/io", "poll-max-ns", 7),
       do("qom-get", path="/objects/io", property="poll-max-ns"), qom_set("/objects/io", "poll-max-ns", -7),
       qom_set("/objects/io", "poll-max-ns", "7"), qom_set("/objects/io", "poll-max-ns", True),
       qom_set("/objects/io", "nope", 7), qom_set("/objects/nope", "nope", 7), qom_set("/objects/io", "type", "x"),
       qom_set("/objects", "io", "x"), qom_set("/", "objects", "x"), qom_set("/objects/io", "poll-grow", 3),
       qom_set("/objects/io", "thread-pool-min", 3), qom_set("/objects/io", "thread-pool-max", 1),
       qom_set("io", "poll-shrink", 4), do("qom-get", path="io", property="poll-shrink"),
       qom_set("/objects/s", "loaded", True), qom_set("/objects/s", "nope", "x"),
       do("qom-set", LOADED, error("Property 'secret.format' is not writable"), path="/objects/s", property="format", value="raw"),
       qom_set("/objects/t", "limits", {"iops-total": 5}), do("qom-get", path="/objects/t", property="limits"),
       qom_set("/objects/t", "limits", {"iops-total": 5, "iops-read": 5}), qom_set("/objects/t", "limits", 5),
       qom_set("/objects/t", "limits", {"nope": 5}), qom_set("/objects/t", "limits", {"iops-total": "5"}),
       qom_set("/objects/t", "limits", {"bps-write": 9, "bps-write-max": 90}),
       do("qom-get", path="/objects/t", property="limits"), qom_set("/objects/t", "x-iops-total", 9))

FEWER = "the types that there are"

script("types of objects",
       do("qom-list-types", FEWER), do("qom-list-types", FEWER, abstract=True), do("qom-list-types", implements="nope"),
       do("qom-list-types", implements="iothread"), do("qom-list-types", implements="throttle-group"),
       do("qom-list-types", implements="secret"), do("qom-list-types", implements="container"),
       do("qom-list-types", implements="event-loop-base"), do("qom-list-types", FEWER, implements="tls-creds"),
       do("qom-list-types", FEWER, implements="user-creatable"),
       do("qom-list-types", implements=5), do("qom-list-types", abstract=5), do("qom-list-types", x=5),
       do("qom-list-properties"), do("qom-list-properties", typename="nope"), do("qom-list-properties", typename=5),
       do("qom-list-properties", typename="iothread"), do("qom-list-properties", typename="throttle-group"),
       do("qom-list-properties", SECRET, typename="secret"), do("qom-list-properties", typename="container"),
       do("qom-list-properties", typename="object"), do("qom-list-properties", typename="user-creatable"))

STAYS = "what cannot be changed stays as it was"


def change(differs=None, ours=None, **arguments):
    return do("chardev-change", differs, ours, **arguments)


NOTHING = {"type": "null", "data": {}}

script("character devices change",
       change(), change(id="c"), change(id="c", backend=NOTHING), change(id="m", backend=NOTHING),
       do("chardev-add", id="c", backend=NOTHING), change(id="c", backend=NOTHING), do("query-chardev"),
       change(id="c", backend={"type": "nope", "data": {}}), change(id="c", backend={"type": "null"}),
       change(id="c", backend=unix("c.sock", server=True, wait=False)), do("query-chardev"),
       change(id="c", backend=unix("c.sock", server=True, wait=False)), do("query-chardev"),
       change(id="c", backend=unix("/nope/c.sock", server=True, wait=False)), do("query-chardev", STAYS),
       change(STAYS, {"return": {}}, id="c", backend=NOTHING), do("chardev-remove", STAYS, {"return": {}}, id="c"),
       do("query-chardev"))
