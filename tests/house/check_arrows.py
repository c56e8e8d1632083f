#!/usr/bin/env python3
"""The include arrows point down: a room includes only its own floor's room or a lower one.

docs/architecture.md has the picture. Reads every #include "..." line under src/ and include/.
"""

import pathlib
import re
import sys

# A room may include itself and what stands here.
MAY_INCLUDE = {
    "platter": {"platter"},
    "base": {"platter"},
    "io": {"platter", "base"},
    "block": {"platter", "base", "io"},
    # What encrypted formats share.
    "crypto": {"platter", "base", "io"},
    "format": {"platter", "base", "io", "block", "crypto"},
    "filter": {"platter", "base", "io", "block"},
    "protocol": {"platter", "base", "io", "block"},
    "job": {"platter", "base", "io", "block"},
    "virtio": {"platter", "base", "io", "block"},
    "export": {"platter", "base", "io", "block", "crypto", "virtio"},
    # The embedder's face over the graph.
    "api": {"platter", "base", "io", "block"},
    # Reads headers with the formats' own parsers; opens nothing.
    "inspect": {"platter", "base", "format", "crypto"},
    "monitor": {"platter", "base", "io", "block", "crypto", "job", "virtio", "export"},
    "tool": {"platter", "base", "io", "block", "crypto", "job", "virtio", "export", "monitor", "api", "inspect"},
}
# What block/ shows to other rooms; the rest is its own affair. graph.h, backend.h and registry.h are
# for those who make images and open them.
BLOCK_SHOWS = {f"block/{name}.h" for name in
               ("accounting", "backend", "child_zones", "debug", "dirty_bitmap", "driver", "filename", "filter_driver", "graph",
                "latency_histogram", "named_nodes", "node", "overlay", "registry", "reopen", "secret_source", "types",
                "unflushed", "write_threshold", "zoned")}
DRIVER_ROOMS = {"format", "filter", "protocol"}
# The one file of block/ that names drivers, and what it may include of them.
BUILTIN_LIST = "block/builtin.cc"
DRIVER_TYPE_HEADER = re.compile(r"^(format|filter|protocol)/(\w+/)*driver_type\.h$")
# A test may set up a whole world around the part that it tests.
TEST_MAY_INCLUDE = set(MAY_INCLUDE) - {"tool", "monitor"}
# tests/support/: what tests of all rooms share.
TEST_SUPPORT = "support"

# Libraries whose headers have a directory of their own; their arrows are not ours.
LIBRARIES = ("fmt/", "gtest/", "gmock/", "nlohmann/")

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def room_of(path):
    return path.split("/", 1)[0]


def driver_of(path):
    """'format/qcow2' of 'format/qcow2/header.h', 'protocol/file' of 'protocol/file.cc'."""
    parts = path.split("/")
    return "/".join(parts[:2]).rsplit(".", 1)[0] if len(parts) > 1 else path


def complaint(user, used):
    """What is wrong with `user` including `used`, or None. Both relative to src/ or include/."""
    if used.startswith(LIBRARIES):
        return None
    room, other = room_of(user), room_of(used)
    if room not in MAY_INCLUDE:
        return f"'{room}' is no room of the house: add it to {pathlib.Path(__file__).name}"
    if other not in MAY_INCLUDE and other != TEST_SUPPORT:
        return "an include names its room: \"room/header.h\""
    if other == TEST_SUPPORT:
        return None if user.endswith(("_test.cc", "_test.h")) else "tests/support/ is for tests"
    if user.endswith("_test.cc") or user.endswith("_test.h"):
        lower = other in TEST_MAY_INCLUDE or other == room
        return None if lower else f"a test of {room}/ may not include {other}/"
    if user == BUILTIN_LIST and DRIVER_TYPE_HEADER.match(used):
        return None
    if other != room and other not in MAY_INCLUDE[room]:
        return f"{room}/ may not include {other}/"
    if other == "block" and room != "block" and used not in BLOCK_SHOWS:
        return "this header is for block/ alone"
    if room in DRIVER_ROOMS and other == room and driver_of(user) != driver_of(used):
        return "drivers do not know each other"
    return None


def check(root):
    problems = []
    for top in ("src", "include"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in (".h", ".cc"):
                continue
            user = path.relative_to(root / top).as_posix()
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = INCLUDE.match(line)
                if match and (problem := complaint(user, match.group(1))):
                    problems.append(f"{top}/{user}:{number}: {match.group(1)}: {problem}")
    return problems


def check_the_checker():
    """Each rule is seen to fire, so that a silent checker is noticed."""
    refused = [
        ("base/json.cc", "io/task.h"),
        ("io/task.h", "block/node.h"),
        ("block/node.cc", "format/qcow2/driver_type.h"),
        ("block/builtin.cc", "format/qcow2/header.h"),
        ("format/qcow2/driver.cc", "block/node_state.h"),
        ("format/qcow2/driver.cc", "format/raw/raw.h"),
        ("format/qcow2/driver.cc", "protocol/file/file.h"),
        ("job/copy_engine.cc", "tool/command.h"),
        ("base/size.cc", "size.h"),
        ("io/task_test.cc", "tool/command.h"),
        ("io/task.cc", "support/scratch_directory.h"),
    ]
    accepted = [
        ("block/builtin.cc", "format/qcow2/driver_type.h"),
        ("format/qcow2/driver.cc", "format/qcow2/header.h"),
        ("format/qcow2/driver.cc", "block/node.h"),
        ("format/qcow2/driver_test.cc", "block/graph.h"),
        ("format/qcow2/driver_test.cc", "support/scratch_directory.h"),
        ("tool/check.cc", "block/graph.h"),
        ("platter/error.h", "platter/open_policy.h"),
    ]
    for user, used in refused:
        assert complaint(user, used), (user, used)
    for user, used in accepted:
        assert not complaint(user, used), (user, used)


def main():
    check_the_checker()
    problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems) or "every arrow points down")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
