#!/usr/bin/env python3
"""The tree holds no notes to ourselves: what is not done is not in it.

usage: check_words.py ROOT
"""

import pathlib
import re
import sys

# Spelt apart, so that this file passes its own check.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
# Where one machine keeps its things.
MACHINE_PATHS = re.compile(r"(?<![\w./])/(wo" r"rk|ho" r"me)/\w")

DIRECTORIES = ["src", "include", "tests", "bench", "fuzz", "cmake", "docs", "packaging", ".ci"]
FILES = ["dev", "README.md", "CONTRIBUTING.md", "CMakeLists.txt", "CMakePresets.json"]
TEXT_SUFFIXES = {".cc", ".h", ".py", ".sh", ".md", ".txt", ".cmake", ".json", ""}


def texts(root):
    for name in FILES:
        yield root / name
    for directory in DIRECTORIES:
        for path in sorted((root / directory).rglob("*")):
            if path.is_file() and path.suffix in TEXT_SUFFIXES and "corpus" not in path.parts:
                yield path


def check(root):
    for path in texts(root):
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # test data, not text
        for number, line in enumerate(lines, 1):
            for pattern, what in ((UNFINISHED, "unfinished"), (MACHINE_PATHS, "a machine's path")):
                if match := pattern.search(line):
                    yield f"{path.relative_to(root)}:{number}: {what}: {match.group(0)}"


def main():
    problems = list(check(pathlib.Path(sys.argv[1])))
    print("\n".join(problems) or "nothing unfinished")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
