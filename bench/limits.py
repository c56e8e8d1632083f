"""A control group that holds one program to an amount of memory, page cache included."""

import contextlib
import os

V1 = "/sys/fs/cgroup/memory"
V2 = "/sys/fs/cgroup"


@contextlib.contextmanager
def memory_group(limit):
    """The file to which a process writes its number to come under the limit; None where no group can be made."""
    first = os.path.exists(f"{V1}/memory.limit_in_bytes")
    group = f"{V1 if first else V2}/platter-bench-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(f"{group}/{'memory.limit_in_bytes' if first else 'memory.max'}", "w") as file:
            file.write(str(limit))
    except OSError:
        with contextlib.suppress(OSError):
            os.rmdir(group)
        yield None
        return
    try:
        yield f"{group}/cgroup.procs"
    finally:
        os.rmdir(group)
