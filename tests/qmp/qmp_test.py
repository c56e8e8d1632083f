#!/usr/bin/env python3
"""Runs each script of a table with the reference daemon and with ours, over standard input and output
or a UNIX socket, and compares every reply.

A request may name a difference that is accepted, with the reason; it fails when that difference is gone.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import client
import command_table
import scripts
import device_scripts  # noqa: F401 (adds to the table)
import nbd_scripts  # noqa: F401 (adds to the table)
import schemas
import setting_scripts  # noqa: F401 (adds to the table)

AUTO_NAME = re.compile(r"#block\d+")


def make_images(directory):
    for name, form, size in (("disk.qcow2", "qcow2", "16M"), ("other.qcow2", "qcow2", "16M"),
                             ("small.qcow2", "qcow2", "1M"), ("plain.raw", "raw", "1M")):
        subprocess.run(["qemu-img", "create", "-q", "-f", form, directory / name, size], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "disk.qcow2", "-F", "qcow2",
                    directory / "overlay.qcow2"], check=True)
    subprocess.run(["qemu-img", "bitmap", "--add", directory / "small.qcow2", "kept"], check=True)


def normalise_image(image):
    if "actual-size" in image:
        image["actual-size"] = "N"
    if image.get("format") == "file":
        image["virtual-size"] = "N"  # how long a file is depends on where things are put in it
    for snapshot in image.get("snapshots", ()):
        normalise_snapshot(snapshot)


def normalise_snapshot(snapshot):
    for key in ("date-sec", "date-nsec", "vm-clock-sec", "vm-clock-nsec"):
        snapshot[key] = "N"
    snapshot.pop("icount", None)


def normalise_graph(graph):
    """Nodes by their names, as numbers are drawn."""
    names = {node["id"]: node["name"] for node in graph["nodes"]}
    return {"nodes": sorted(names.values()),
            "edges": sorted((names[edge["parent"]], names[edge["child"]], edge["name"],
                             sorted(edge["perm"]), sorted(edge["shared-perm"])) for edge in graph["edges"])}


def normalise_statistics(one):
    # Of zoned disks QEMU counts since 8.1.
    one["stats"] = {key: counted for key, counted in one["stats"].items() if "zone_append" not in key}
    for below in ("parent", "backing"):
        if below in one:
            normalise_statistics(one[below])


def normalise(value):
    """What differs from run to run, or from program to program as it must."""
    if isinstance(value, str):
        if value.startswith("json:{"):
            return "json:" + json.dumps(json.loads(value[5:]), sort_keys=True)
        if value.startswith(("JSON parse error", "JSON nesting", "JSON token")):
            return "JSON parse error"
        return AUTO_NAME.sub("#block", value)
    if isinstance(value, list):
        items = [normalise(item) for item in value]
        if items and all(isinstance(item, dict) and ("node-name" in item or "name" in item or "label" in item)
                         for item in items):
            items.sort(key=lambda item: json.dumps(item, sort_keys=True))
        return items
    if not isinstance(value, dict):
        return value
    value = {key: normalise(item) for key, item in value.items()}
    if "QMP" in value:
        value["QMP"]["version"] = "V"
    if "qemu" in value and "package" in value:
        return "V"
    if "virtual-size" in value:
        normalise_image(value)
    if "vm-state-size" in value:
        normalise_snapshot(value)
    if "edges" in value and "nodes" in value:
        return normalise_graph(value)
    if "timestamp" in value:
        value["timestamp"] = "T"
    if "stats" in value:
        normalise_statistics(value)
    return value


def run(program, script, directory):
    requests = [{"execute": "qmp_capabilities"}] if script.negotiate else []
    requests += [step.request for step in script.steps] + [{"execute": "quit"}]
    if script.over_socket:
        daemon = client.SocketClient(program, directory)
        replies = [daemon.greeting] + [daemon.ask(request) for request in requests[:-1]]
        status = daemon.end()
        replies.append({"return": {}})
    else:
        replies, status, _ = client.talk_stdio(program, requests, directory)
    return [normalise(reply) for reply in replies], status


def differences(theirs, mine, path=""):
    if isinstance(theirs, dict) and isinstance(mine, dict):
        lines = []
        for key in sorted(set(theirs) | set(mine)):
            lines += differences(theirs.get(key, "nothing"), mine.get(key, "nothing"), f"{path}.{key}")
        return lines
    if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        return [line for i, pair in enumerate(zip(theirs, mine)) for line in differences(*pair, f"{path}[{i}]")]
    return [] if theirs == mine else [f"{path}: reference {theirs}, ours {mine}"]


def compare(script, ours, reference):
    """Lines about what is not as it should be."""
    problems = []
    (our_replies, our_status), (their_replies, their_status) = ours, reference
    if our_status != 0 or their_status != 0:
        problems.append(f"exit status {our_status}, of the reference {their_status}")
    if len(our_replies) != len(their_replies):
        problems.append(f"{len(our_replies)} replies instead of {len(their_replies)}")
    # Events come in between.
    events = [[reply for reply in replies if "event" in reply] for replies in (our_replies, their_replies)]
    if events[0] != events[1]:
        problems.append(f"events {events[0]} instead of {events[1]}")
    our_replies, their_replies = ([reply for reply in replies if "event" not in reply]
                                  for replies in (our_replies, their_replies))
    first = 2 if script.negotiate else 1
    for i, (mine, theirs) in enumerate(zip(our_replies, their_replies)):
        step = script.steps[i - first] if first <= i < first + len(script.steps) else None
        differs = step.differs if step else None
        if mine == theirs and differs:
            problems.append(f"{step.request}: the accepted difference is gone: {differs}")
        if mine != theirs and not differs:
            problems.append(f"{step.request if step else i}:\n      " + "\n      ".join(differences(theirs, mine)))
        if differs and step.ours is not None and mine != step.ours:
            problems.append(f"{step.request}: ours should be {step.ours}, is {mine}")
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ours", required=True)
    parser.add_argument("--reference", required=True)
    parser.add_argument("only", nargs="*")
    arguments = parser.parse_args()
    failed = 0
    for script in scripts.SCRIPTS:
        if arguments.only and script.name not in arguments.only:
            continue
        outcomes = []
        for program in (arguments.ours, arguments.reference):
            with tempfile.TemporaryDirectory() as name:
                make_images(pathlib.Path(name))
                outcomes.append(run(program, script, pathlib.Path(name)))
        problems = compare(script, *outcomes)
        failed += bool(problems)
        print(f"{script.name}: {'differs' if problems else 'same'} ({len(script.steps)} requests)")
        for problem in problems:
            print(f"    {problem}")
    if not arguments.only:
        for name, problems in (("schema", schemas.compare(arguments.ours, arguments.reference)),
                               ("coverage", command_table.compare_coverage(arguments.reference))):
            failed += bool(problems)
            print(f"{name}: {'differs' if problems else 'same'}")
            for problem in problems:
                print(f"    {problem}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
