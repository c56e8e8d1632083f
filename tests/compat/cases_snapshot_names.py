"""Naming a snapshot, wherever something is named: -l of convert and measure takes parts, the others take text."""

from cases import accept, cases
from cases_shell import programs

WARNS = accept("QEMU warns that an option without a value is deprecated")
SHOWS_ONE = accept("QEMU shows the snapshot of the first source and the present of the others: ours refuses", "stderr", "status", "files")

# Ids 1 to 3, named a, 3 and b: "3" is an id and a name.
_PARTS = ["snapshot.id=3", "snapshot.name=3", "3", "2", "a", "snapshot.id=2,snapshot.name=3", "snapshot.id=3,snapshot.name=3", "snapshot.id=1,snapshot.id=3",
          "snapshot.name=a,snapshot.id=2", "a,snapshot.id=1", "id=1", "name=a", "snapshot.id=", "snapshot.name=", "snapshot.id=1,snapshot.name=",
          "snapshot.id=1,snapshot.name=a,", "snapshot.id=1,,a", "nosnapshot.id=1", "snapshot.id=1,snapshot.frob=a",
          "snapshot.name=A", "snapshot.id=01", "snapshot.id= 1", "snapshot"]
ID = accept("every list of options has an 'id' in QEMU, and there it is no identifier: ours knows no such option here")
PARTS_FIRST = accept("of parts and text QEMU takes the parts, ours the last one given", "stdout", "files")
_BARE = ["snapshot.id", "snapshot.", "snapshot.name=a,snapshot.id", "snapshot.id=1,nosnapshot.name"]

for command, target in (("convert -O qcow2", " x.qcow2"), ("measure -O qcow2", "")):
    cases(f"snapshot names/{command.split()[0]}",
          *[f"{command} -l '{part}' snapshots.qcow2{target}" for part in _PARTS],
          *[(f"{command} -l '{part}' snapshots.qcow2{target}", WARNS) for part in _BARE],
          (f"{command} -l snapshot.id=1,id=1 snapshots.qcow2{target}", ID),
          f"{command} -l a -l b snapshots.qcow2{target}", f"{command} -l b -l snapshot.id=1 snapshots.qcow2{target}",
          (f"{command} -l snapshot.id=1 -l b snapshots.qcow2{target}", PARTS_FIRST),
          f"{command} -l snapshot.id=1 --image-opts driver=qcow2,file.filename=snapshots.qcow2{target}",
          f"{command} -l a --image-opts driver=qcow2,file.filename=snapshots.qcow2{target}",
          f"{command} -l a --image-opts file.filename=snapshots.qcow2{target}",
          f"{command} -l snapshot.name=a --image-opts driver=raw,file.filename=snapshots.qcow2{target}",
          f"{command} -f qcow2 -l snapshot.name=b snapshots.qcow2{target}", f"{command} -f raw -l snapshot.name=b snapshots.qcow2{target}",
          f"{command} -U -l snapshot.name=b snapshots.qcow2{target}",
          f"{command} -l snapshot.name=b 'json:{{\"driver\":\"qcow2\",\"file\":{{\"driver\":\"file\",\"filename\":\"snapshots.qcow2\"}}}}'{target}")

cases("snapshot names/several sources",
      ("convert -l snapshot.id=1 snapshots.qcow2 snapshots.qcow2 x.img", SHOWS_ONE), "convert -l a snapshots.qcow2 snapshots.qcow2 x.img")

# No node is opened at a snapshot: a format has no such option.
_NODES = ["driver=qcow2,snapshot.id=1,file.filename=snapshots.qcow2", "driver=qcow2,snapshot.name=a,file.filename=snapshots.qcow2",
          "driver=qcow2,snapshot=a,file.filename=snapshots.qcow2", "snapshot.id=1,file.filename=snapshots.qcow2",
          "driver=raw,snapshot.id=1,file.filename=snapshots.qcow2", "driver=file,snapshot.id=1,filename=snapshots.qcow2",
          "driver=qcow2,file.snapshot.id=1,file.filename=snapshots.qcow2"]
_JSON = ['{"driver":"qcow2","snapshot":{"name":"a"},"file":{"driver":"file","filename":"snapshots.qcow2"}}',
         '{"driver":"qcow2","snapshot.id":"1","file":{"driver":"file","filename":"snapshots.qcow2"}}',
         '{"driver":"qcow2","snapshot":"a","file":{"driver":"file","filename":"snapshots.qcow2"}}']

cases("snapshot names/nodes",
      *[f"info --image-opts {node}" for node in _NODES], *[f"info 'json:{node}'" for node in _JSON],
      "map --image-opts driver=qcow2,backing.snapshot.id=1,file.filename=overlay.qcow2",
      *[f"{command} --image-opts {_NODES[0]}" for command in ("map", "check", "measure", "snapshot -l", "snapshot -a a")],
      f"convert --image-opts {_NODES[0]} x.img", f"convert 'json:{_JSON[0]}' x.img", f"compare 'json:{_JSON[0]}' snapshots.qcow2",
      f"convert -n --target-image-opts raw.img {_NODES[0]}", f"create -f qcow2 -b 'json:{_JSON[1]}' -F qcow2 x.qcow2")

cases("snapshot names/as text",
      *[f"snapshot {action} {name} snapshots.qcow2" for action in ("-a", "-d") for name in ("snapshot.name=a", "snapshot.id=1", "snapshot.id")],
      "convert -s a snapshots.qcow2 x.img", "convert --snapshot=a snapshots.qcow2 x.img", "convert --load-snapshot=a snapshots.qcow2 x.img",
      *[f"{command} -l a snapshots.qcow2" for command in ("info", "check", "resize", "bench", "commit")],
      "compare -l a snapshots.qcow2 snapshots.qcow2", "dd -l a if=snapshots.qcow2 of=x.img", "rebase -l a -b '' snapshots.qcow2", needs=("snapshots.qcow2",))

programs("snapshot names/shell",
         *[f"-r --image-opts -c length {node}" for node in _NODES[:3]], f"-r -c length 'json:{_JSON[0]}'")
