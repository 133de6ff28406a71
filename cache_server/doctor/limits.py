"""Limits of the process that a server would be: open files, locked memory, memory of the control group."""

import os
import resource

from cache_server.config import ServerConfig
from cache_server.config.memory import read_auto_memory_bytes, read_memory_limit_bytes
from cache_server.page.markup import size
from hotshard.core.findings import Finding, ok, warn

OPEN_FILES_FEW = 65_536
RESERVE_BYTES = 256 << 20
"""What a server needs beside its memory budget: the interpreter and the index of some shards."""


def open_files() -> Finding:
    """Each warm shard keeps one open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return ok("open files", "no limit")
    fact = f"at most {hard:,} (RLIMIT_NOFILE, hard)"
    if hard < OPEN_FILES_FEW:
        return warn(
            "open files",
            fact,
            f"each warm shard keeps a file open: raise it to {OPEN_FILES_FEW:,} or more"
            " (LimitNOFILE of containerd, ulimit -Hn)",
        )
    return ok("open files", fact)


def locked_memory() -> Finding:
    """The server locks none; it is shown because people look for it."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "no limit" if hard == resource.RLIM_INFINITY else size(hard)
    return ok("locked memory", f"{limit} (RLIMIT_MEMLOCK); the server locks none")


def memory(config: ServerConfig) -> Finding:
    """Whether the budget fits what the control group allows."""
    budget = config.memory_bytes or read_auto_memory_bytes()
    limit = read_memory_limit_bytes()
    if limit is None:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fact = f"budget {size(budget)}, no limit of the control group,"
        return ok("memory", f"{fact} {size(pages)} in the machine")
    fact = f"budget {size(budget)} of a limit of {size(limit)}"
    if budget + RESERVE_BYTES > limit:
        return warn(
            "memory",
            fact,
            "the kernel may kill the server: raise the memory limit of the pod, or lower memory_bytes",
        )
    return ok("memory", fact)
