#!/usr/bin/env python3
"""The probes in the program's ELF notes are those of the documentation, with as many arguments."""

import re
import subprocess
import sys


def in_program(program):
    notes = subprocess.run(["readelf", "--notes", "--wide", program], capture_output=True, text=True, check=True).stdout
    found = {}
    for name, arguments in re.findall(r"Provider: platter\s+Name: (\w+)\s+.*?Arguments: ?([^\n]*)", notes, re.DOTALL):
        # SIZE@PLACE; a place may have blanks in it.
        found.setdefault(name, set()).add(len(re.findall(r"-?\d+f?@", arguments)))
    return found


def in_documentation(path):
    """The rows "| `name` | ... | `first`, `second` |"."""
    found = {}
    for line in open(path, encoding="utf-8"):
        row = re.match(r"\| `(\w+)` \|[^|]*\|([^|]*)\|", line)
        if row:
            found[row[1]] = {len(re.findall(r"`\w+`", row[2]))}
    return found


def main():
    program, documented = in_program(sys.argv[1]), in_documentation(sys.argv[2])
    for name in sorted(set(program) | set(documented)):
        if program.get(name) != documented.get(name):
            print(f"{name}: arguments in the program {program.get(name)}, documented {documented.get(name)}")
    return 0 if program == documented and program else 1


if __name__ == "__main__":
    sys.exit(main())
