"""What is said to both daemons of character devices with content, of the graph's edges, and of what was there before."""

from scripts import QCOW2, do, error, script, unix

RING = {"type": "ringbuf", "data": {"size": 64}}


def put(device, data, **more):
    return do("ringbuf-write", device=device, data=data, **more)


def get(device, size, **more):
    return do("ringbuf-read", device=device, size=size, **more)


script("ring buffers",
       do("chardev-add", id="r", backend=RING), do("chardev-add", id="m2", backend={"type": "memory", "data": {}}),
       *(do("chardev-add", id="bad", backend={"type": "ringbuf", "data": {"size": size}}) for size in (63, -5, "x", 1.5)),
       do("chardev-add", id="none", backend={"type": "ringbuf", "data": {"size": 0}}),
       do("chardev-add", id="n", backend={"type": "null", "data": {}}), do("query-chardev"),
       put("r", "hello"), get("r", 3), get("r", 30), get("r", 30), get("r", 0), get("r", -1), get("nope", 3), get("n", 3), get("m", 3),
       put("n", "x"), put("nope", "x"), put("m", "x"), put("r", "abc%\u00e9\u20ac"), get("r", 2), get("r", 3), get("r", 30),
       put("r", "AAAA", format="base64"), get("r", 30), put("r", "AP/+/w==", format="base64"), get("r", 30),
       put("r", "AP/+/w==", format="base64"), get("r", 30, format="base64"), put("r", "!!", format="base64"),
       put("r", "!!", format="x"), put("r", "AAA", format="base64"), do("ringbuf-read", "the padding may be missing", device="r", size=30, format="base64"),
       put("r", "x" * 60 + "y" * 10), get("r", 300, format="base64"), put("r", "w\u00e9"), get("r", 2), get("r", 2), get("r", 2),
       put("r", ""), get("r", 2), put("m2", "z" * 1000), get("m2", 2000),
       *(do("chardev-send-break", id=one) for one in ("r", "n", "nope", "m")),
       do("chardev-change", id="r", backend=RING), do("chardev-change", id="r", backend=unix("r.sock", server=True, wait=False)),
       put("r", "x"), do("chardev-remove", id="r"), do("query-chardev"))


def inet(address=None, **more):
    return {"type": "socket", "data": {"addr": {"type": "inet", "data": {"host": "127.0.0.1", "port": "1", **(address or {})}}, **more}}


def chardev(backend, differs=None, ours=None):
    return do("chardev-add", differs, ours, id="c", backend=backend)


GONE = do("chardev-remove", id="c")

script("other character devices",
       chardev(inet({"port": "0"}, server=True, wait=False)), GONE, chardev(inet(server=False)),
       chardev(inet({"port": "zip"}, server=True, wait=False)),
       chardev(inet({"port": "0", "ipv6": False}, server=True, wait=False)), GONE,
       chardev(inet({"port": 5}, server=True)), chardev(inet({"host": None}, server=True)),
       chardev({"type": "file", "data": {"out": "out.txt"}}), do("query-chardev"), GONE,
       chardev({"type": "file", "data": {"out": "out.txt", "append": True}}), GONE, chardev({"type": "file", "data": {}}),
       chardev({"type": "file", "data": {"out": "/nope/x"}}), chardev({"type": "file", "data": {"out": "o2", "in": "nope"}}),
       chardev({"type": "pipe", "data": {"device": "nope"}}), chardev({"type": "pipe", "data": {}}),
       chardev({"type": "null", "data": {"logfile": "log"}}, "there are no logs of what goes through one",
               error("Failed to add chardev 'c': 'logfile' is not supported")),
       do("chardev-remove", "it was not made", id="c"))

CHAIN = [do("blockdev-add", driver="qcow2", node_name="b", read_only=True, file={**QCOW2, "node-name": "bf"}),
         do("blockdev-add", driver="qcow2", node_name="o", backing="b",
            file={"driver": "file", "filename": "overlay.qcow2", "node-name": "of"})]


def rename(device, image, name):
    return do("change-backing-file", device=device, image_node_name=image, backing_file=name)


script("change-backing-file", *CHAIN,
       do("blockdev-add", driver="raw", node_name="r", file={"driver": "file", "filename": "plain.raw", "node-name": "rf"}),
       rename("nope", "nope2", "x"), rename("o", "nope", "x"), rename("nope", "o", "x"), rename("o", "b", "x"), rename("b", "o", "x"),
       rename("of", "o", "x"), rename("", "o", "x"), rename("o", "", "x"), rename("o", "of", "x"), rename("r", "r", "x"),
       rename("r", "o", "x"), rename("o", "o", "./disk.qcow2"), do("query-named-block-nodes", flat=True), rename("o", "o", "y" * 1023),
       do("change-backing-file", "why it cannot be", device="o", image_node_name="o", backing_file="y" * 1024), rename("o", "o", "none.qcow2"), rename("o", "o", ""),
       do("query-named-block-nodes", flat=True), rename("o", "o", "disk.qcow2"),
       do("blockdev-add", driver="copy-on-read", node_name="c", file="o"), rename("c", "o", "x"), rename("o", "o", "x"))

script("change-backing-file of what is read-only", CHAIN[0],
       do("blockdev-add", driver="qcow2", node_name="o", backing="b", read_only=True,
          file={"driver": "file", "filename": "overlay.qcow2", "node-name": "of"}),
       rename("o", "o", "new.qcow2"), do("query-named-block-nodes", flat=True), do("blockdev-del", node_name="o"),
       do("blockdev-add", driver="file", node_name="of", filename="overlay.qcow2", read_only=True),
       do("blockdev-add", driver="qcow2", node_name="o", backing="b", read_only=True, file="of"),
       rename("o", "o", "newer.qcow2"), do("query-named-block-nodes", flat=True))


def change(**arguments):
    return do("x-blockdev-change", **arguments)


def move(**arguments):
    return do("x-blockdev-set-iothread", **arguments)


script("children and threads", CHAIN[0], do("blockdev-add", driver="null-co", node_name="n"),
       change(), change(parent="b"), change(parent="nope"), change(parent="b", child="file"), change(parent="b", child="nope"),
       change(parent="b", node="n"), change(parent="b", node="nope"), change(parent="b", node="n", child="file"),
       change(parent="nope", node="n", child="file"), change(parent=5), change(parent="b", zip=5),
       do("object-add", qom_type="iothread", id="io"), move(), move(node_name="b"), move(node_name="b", iothread="io"),
       move(node_name="b", iothread=None), move(node_name="b", iothread="nope"), move(node_name="b", iothread=5),
       move(node_name="nope", iothread="io"), move(node_name="b", iothread="io", force=5), move(node_name="b", iothread="io", force=True),
       move(node_name="b", iothread=None),
       do("block-export-add", type="vhost-user-blk", id="e", node_name="n", addr={"type": "unix", "path": "x.sock"}),
       move(node_name="n", iothread=None), move(node_name="n", iothread=None, force=True), move(node_name="b", iothread=None),
       do("block-export-del", id="e"))

script("other objects",
       do("object-add", qom_type="authz-simple", id="a", identity="x"), do("object-add", qom_type="authz-simple", id="a2"),
       do("object-add", qom_type="authz-list", id="l", policy="allow",
          rules=[{"match": "fred", "policy": "deny", "format": "glob"}, {"match": "bob", "policy": "allow"}]),
       do("object-add", qom_type="authz-list", id="l2", rules=[{"match": "fred"}]),
       do("object-add", qom_type="authz-list", id="l2", rules=5), do("object-add", qom_type="authz-list", id="l2", policy="zip"),
       do("object-add", qom_type="tls-creds-anon", id="t", endpoint="server"),
       do("object-add", qom_type="tls-creds-anon", id="t2", endpoint="zip"), do("object-add", qom_type="tls-creds-x509", id="t2"),
       do("object-add", qom_type="tls-creds-psk", id="t2", dir="/nope"), do("object-add", qom_type="secret_keyring", id="k"),
       do("object-add", qom_type="secret_keyring", id="k", serial=0), do("object-add", qom_type="secret_keyring", id="k", serial=2**40),
       do("object-add", qom_type="secret_keyring", id="k", serial=1),
       do("object-add", qom_type="main-loop", id="m1", **{"aio-max-batch": 4}), do("object-add", qom_type="main-loop", id="m2"),
       do("object-del", id="m1"), do("object-add", qom_type="main-loop", id="m2", **{"thread-pool-max": 0}),
       do("object-add", qom_type="pr-manager-helper", id="p", path="/nope"),
       do("qom-get", path="/objects/a", property="identity"), do("qom-get", path="/objects/t", property="endpoint"),
       do("qom-get", path="/objects/t", property="verify-peer"), do("qom-get", path="/objects/l", property="policy"),
       do("qom-get", path="/objects/l", property="rules"), do("qom-list", path="/objects"), do("object-del", id="a"), do("object-del", id="t"))
