"""What is said to both daemons of the NBD server and of what it serves."""

from scripts import QCOW2, do, error, script, unix

SMALL = {"driver": "file", "filename": "small.qcow2"}
ADDRESS = unix("nbd.sock")["data"]["addr"]
NODES = [do("blockdev-add", driver="qcow2", node_name="d", file=QCOW2),
         do("blockdev-add", driver="qcow2", node_name="s", file=SMALL),
         do("blockdev-add", driver="null-co", node_name="r", size=1048576, read_only=True)]
START = do("nbd-server-start", addr=ADDRESS)
LISTED = do("query-block-exports")


def export(id="e", differs=None, ours=None, node_name="d", **more):
    return do("block-export-add", differs, ours, type="nbd", id=id, node_name=node_name, **more)


script("NBD server", *NODES,
       export(), do("nbd-server-stop"), do("nbd-server-add", device="d"), do("nbd-server-remove", name="d"),
       do("nbd-server-start"), do("nbd-server-start", addr=5), do("nbd-server-start", addr={"type": "nope", "data": {}}),
       do("nbd-server-start", addr={"type": "unix", "data": {"path": "/nope/nbd.sock"}}),
       do("nbd-server-start", addr=ADDRESS, max_connections=-1), do("nbd-server-start", addr=ADDRESS, max_connections=2**32),
       do("nbd-server-start", addr=ADDRESS, tls_creds="nope"), do("nbd-server-start", addr=ADDRESS, zip=1),
       do("nbd-server-start", "words", error("Unable to parse FD number x"), addr={"type": "fd", "data": {"str": "x"}}), START, START, do("nbd-server-start", addr=ADDRESS, tls_creds=""),
       do("nbd-server-stop"), do("nbd-server-stop"), do("nbd-server-stop", zip=1),
       do("nbd-server-start", addr=ADDRESS, max_connections=0, tls_authz="nope"), do("nbd-server-stop"),
       do("nbd-server-start", addr={"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}), LISTED)

script("NBD exports", *NODES, START,
       export(), export("f"), export("e"), export("f", name="other", description="a disk", writable=True), LISTED,
       export("g", name="n" * 4097), export("g", name="n", description="d" * 4097), export("g", node_name="nope"),
       export("g", node_name="r", writable=True), export("g", node_name="r", name=""), export("h", iothread="nope", name="h"),
       export("h", name="h", allocation_depth=True, writethrough=True, writable=True), export("i", name=5), export("i", zip=1),
       LISTED, do("block_resize", node_name="d", size=33554432), do("blockdev-del", node_name="d"),
       do("block-export-del", id="f"), do("block-export-del", id="h", mode="hard"), do("block-export-del", id="h"), LISTED,
       do("nbd-server-stop"), LISTED, do("block_resize", node_name="d", size=33554432), export())

script("NBD exports and bitmaps", *NODES, START,
       export(node_name="s", bitmaps=["nope"]), export(node_name="s", bitmaps=["kept"]), export(node_name="s", bitmaps=5),
       export(node_name="s", bitmaps=[{"node": "s", "name": "nope"}]), export(node_name="s", bitmaps=[{"node": "d", "name": "kept"}]),
       export(node_name="s", bitmaps=["kept"], writable=True), export("f", node_name="s", name="f", bitmaps=[{"node": "s", "name": "kept"}]),
       do("block-dirty-bitmap-remove", node="s", name="kept"),
       do("block-dirty-bitmap-clear", node="s", name="kept"), do("block-dirty-bitmap-disable", node="s", name="kept"),
       do("block-dirty-bitmap-enable", node="s", name="kept"),
       do("block-dirty-bitmap-add", node="s", name="new"), do("block-dirty-bitmap-merge", node="s", target="kept", bitmaps=["new"]),
       do("block-export-del", id="e"), do("block-dirty-bitmap-disable", node="s", name="kept"),
       export(node_name="s", bitmaps=["kept"]), do("nbd-server-stop"), do("block-dirty-bitmap-remove", node="s", name="kept"))

script("NBD exports, the older commands", *NODES, START,
       do("nbd-server-add"), do("nbd-server-add", device="nope"), do("nbd-server-add", device="d"), do("nbd-server-add", device="d"),
       do("nbd-server-add", device="d", name="w", writable=True, description="words"), do("nbd-server-add", device="r", name="r", writable=True),
       do("nbd-server-add", device="s", name="b", bitmap="nope"), do("nbd-server-add", device="s", name="b", bitmap="kept"),
       do("nbd-server-add", device="s", name="b", bitmap="kept", writable=True), do("nbd-server-add", device="d", name="a b"), LISTED,
       do("nbd-server-remove"), do("nbd-server-remove", name="nope"), do("nbd-server-remove", name="w"),
       do("nbd-server-remove", name="w", mode="hard"), do("nbd-server-remove", name="b", mode="hard"), do("nbd-server-remove", name="d", mode="x"),
       do("block-export-del", id="d"), do("nbd-server-remove", name="r"), LISTED)
