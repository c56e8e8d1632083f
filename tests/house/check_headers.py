#!/usr/bin/env python3
"""Every header compiles alone; a public one with nothing but include/ to look into.

usage: check_headers.py ROOT COMPILER [FLAG...]
"""

import concurrent.futures
import os
import pathlib
import subprocess
import sys


def compile_alone(command, header):
    run = subprocess.run(command + ["-x", "c++", str(header)], capture_output=True, text=True)
    return None if run.returncode == 0 else f"{header} does not compile alone:\n{run.stderr}"


def main():
    root, compiler, flags = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    public = [compiler, *flags, "-std=c++23", "-fsyntax-only", "-Wno-pragma-once-outside-header",
              f"-I{root / 'include'}"]
    house = public + [f"-I{root / 'src'}"]
    work = [(public, header) for header in sorted((root / "include").rglob("*.h"))]
    work += [(house, header) for header in sorted((root / "src").rglob("*.h"))]
    assert work, "no headers found"
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [p for p in pool.map(lambda job: compile_alone(*job), work) if p]
    print("\n".join(problems) or f"{len(work)} headers compile alone")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
