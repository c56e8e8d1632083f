#!/usr/bin/env python3
"""The tour in README.md is real: its commands run, in order, and print what it says they print.

A tour stands in ```console blocks: lines that begin with "$ " are commands, what follows each is its
output (both streams). A line "..." stands for any lines, "..." within a line for any text. All
blocks of the file run in one shell, in a scratch directory, with `platter` on the path.

The code in ```cpp blocks is part of EXAMPLE, which is built and run by a test of its own.

usage: check_readme.py MARKDOWN PROGRAM_DIRECTORY EXAMPLE
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

MARK = "--- end of output ---"


def steps_of(markdown):
    steps = []
    for block in re.findall(r"^```console\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif line.startswith("> ") and steps and not steps[-1][1]:
                steps[-1] = (steps[-1][0] + "\n" + line[2:], [])
            else:
                steps[-1][1].append(line)
    return steps


def pattern_of(expected):
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.split("...")) + r"\n"
    return re.compile(pattern)


def code_that_is_not_in(example, markdown):
    blocks = re.findall(r"^```cpp\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)
    return [block for block in blocks if block not in example]


def run_tour(steps, programs, directory):
    environment = dict(os.environ, PATH=f"{programs}:{os.environ['PATH']}", LC_ALL="C.UTF-8")
    environment.pop("COLUMNS", None)
    script = "exec 2>&1\n" + "".join(f"{command}\necho; echo '{MARK}'\n" for command, _ in steps)
    run = subprocess.run(["sh"], input=script, cwd=directory, env=environment, text=True,
                         stdout=subprocess.PIPE)
    return run.stdout.split(f"\n{MARK}\n")


def main():
    markdown = pathlib.Path(sys.argv[1]).read_text()
    steps = steps_of(markdown)
    assert steps, "no commands found"
    strange_code = code_that_is_not_in(pathlib.Path(sys.argv[3]).read_text(), markdown)
    for block in strange_code:
        print(f"this code is not part of {sys.argv[3]}:\n{block}")
    with tempfile.TemporaryDirectory() as directory:
        outputs = run_tour(steps, pathlib.Path(sys.argv[2]).resolve(), directory)
    bad = 0
    for (command, expected), output in zip(steps, outputs):
        if not pattern_of(expected).fullmatch(output):
            bad += 1
            print(f"$ {command}\n--- expected\n" + "\n".join(expected) + f"\n--- printed\n{output}")
    if len(outputs) <= len(steps):
        bad += 1
        print(f"the tour stopped after {len(outputs) - 1} of {len(steps)} commands")
    print(f"{len(steps) - bad} of {len(steps)} commands do as the page says")
    return 1 if bad or strange_code else 0


if __name__ == "__main__":
    sys.exit(main())
