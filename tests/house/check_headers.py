#!/usr/bin/env python3
"""Every header compiles alone; a public one with nothing but include/ to look into.

Of the others, those that a source of the same name includes first have been compiled alone by the build.

usage: check_headers.py ROOT COMPILER [FLAG...]
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys


_INCLUDE = re.compile(r'#include\s+["<](.*)[">]')


def first_include(source):
    for line in source.read_text().splitlines():
        if found := _INCLUDE.match(line):
            return found.group(1)
    return None


def is_built_alone(header, directory):
    sources = [header.with_suffix(".cc"), header.with_name(header.stem + "_test.cc")]
    name = str(header.relative_to(directory))
    return any(source.exists() and first_include(source) == name for source in sources)


def compile_alone(command, header):
    run = subprocess.run(command + ["-x", "c++", str(header)], capture_output=True, text=True)
    return None if run.returncode == 0 else f"{header} does not compile alone:\n{run.stderr}"


def main():
    root, compiler, flags = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    public = [compiler, *flags, "-std=c++23", "-fsyntax-only", "-Wno-pragma-once-outside-header",
              f"-I{root / 'include'}"]
    house = public + [f"-I{root / 'src'}"]
    work = [(public, header) for header in sorted((root / "include").rglob("*.h"))]
    own = sorted((root / "src").rglob("*.h"))
    work += [(house, header) for header in own if not is_built_alone(header, root / "src")]
    assert own and len(work) > len(own) // 20, "no headers found"
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [p for p in pool.map(lambda job: compile_alone(*job), work) if p]
    print("\n".join(problems) or f"{len(work)} headers compile alone, the build has shown it of the others")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
