"""How much memory the server may use, when the configuration says `auto`.

The budget is 60% of the memory limit of our control group. Without a limit the machine belongs to the
training jobs as well, and the budget is 25% of its memory. Never less than 128 MiB, so that something
can move at all, and never more than 4 GiB, beyond which more in flight makes nothing faster.
"""

import re
from collections.abc import Iterable, Iterator

BUDGET_BYTES_MIN = 128 << 20
BUDGET_BYTES_MAX = 4 << 30
LIMIT_SHARE = 0.60
MACHINE_SHARE = 0.25

_UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as the largest page-aligned signed 64-bit number."""


def auto_memory_bytes(limits: Iterable[str], meminfo: str) -> int:
    """The budget, from the contents of limit files and of /proc/meminfo.

    Args:
        limits: contents of memory.max (v2) or memory.limit_in_bytes (v1) of our group and its parents.
        meminfo: contents of /proc/meminfo; may be empty.
    """
    limit = memory_limit_bytes(limits)
    total = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE | re.ASCII)
    wanted = BUDGET_BYTES_MIN
    if limit is not None:
        wanted = int(limit * LIMIT_SHARE)
    elif total is not None:
        wanted = int(int(total[1]) * 1024 * MACHINE_SHARE)
    return max(BUDGET_BYTES_MIN, min(BUDGET_BYTES_MAX, wanted))


def limit_files(proc_self_cgroup: str) -> Iterator[str]:
    """Where the limits of our group and of its parents stand, from /proc/self/cgroup.

    A limit anywhere above us binds us too. In a container the paths may be those of the host, while the
    files of our own group lie at the root: so the root is always among them.
    """
    for line in proc_self_cgroup.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = "/sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in group.split("/") if part not in {"", ".."}]
        for depth in range(len(parts), -1, -1):
            yield "/".join([root, *parts[:depth], name])


def memory_limit_bytes(limits: Iterable[str]) -> int | None:
    """The lowest limit that binds us; None: there is none."""
    found = [int(text) for text in limits if re.fullmatch(r"\d+\s*", text, re.ASCII)]
    return min((size for size in found if size < _UNLIMITED_BYTES), default=None)


def read_memory_limit_bytes() -> int | None:
    """That of this process, on this machine. Reads files: not for the event loop."""
    return memory_limit_bytes(_read(path) for path in limit_files(_read("/proc/self/cgroup")))


def read_auto_memory_bytes() -> int:
    """The budget of this process, on this machine. Reads files: not for the event loop."""
    limits = [_read(path) for path in limit_files(_read("/proc/self/cgroup"))]
    return auto_memory_bytes(limits, _read("/proc/meminfo"))


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(1 << 20)
    except OSError:  # no such group here, or no /proc at all
        return ""
