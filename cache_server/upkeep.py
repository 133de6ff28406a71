"""What a node does by itself, again and again: tasks that never end, and two settings of the process."""

import asyncio
import ctypes
import gc
import resource
from collections.abc import Awaitable, Callable

from cache_server.history import SAMPLE_PERIOD_S
from cache_server.status import Statuses
from cache_server.store.store import Store

COLLECT_AFTER_OBJECTS = (
    50_000  # a read's objects are some tens: garbage stays below some tens of MiB
)
TEND_INTERVAL_S = 1.0
PROBE_INTERVAL_S = 30.0
SCRUB_SHARD_S = 0.05  # after each shard: a million small ones in fourteen hours
SCRUB_IDLE_S = 1.0  # where there is nothing to check
SCRUB_BYTES_PER_S = 32 << 20  # a terabyte in nine hours
SCRUB_BUSY_BYTES_PER_S = (
    SCRUB_BYTES_PER_S / 10
)  # slow, but a node that is always busy is checked as well
SCRUB_AGE_S = 60.0  # the kernel writes a page to the device after 30 to 35 s, if not before
OPEN_FILES_MAX = 1 << 20
KEPT_PIECE_BYTES = 4 << 20
KEPT_BYTES = 32 << 20  # of each arena
Sleep = Callable[[float], Awaitable[None]]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


async def tend(store: Store) -> None:
    """Give space back when others fill the file system."""
    while True:
        await asyncio.sleep(TEND_INTERVAL_S)
        await store.tend()


async def probe(store: Store) -> None:
    """Take failed disks back when they work again."""
    while True:
        await asyncio.sleep(PROBE_INTERVAL_S)
        await store.probe()


async def scrub(store: Store, busy: Callable[[], bool], sleep: Sleep = asyncio.sleep) -> None:
    """Check sealed shards against their checksums, one after the other, slowly, for ever.

    Args:
        store: what is checked.
        busy: whether readers wait for the origin, and the disks are being written.
        sleep: of the event loop, or of a test's own time.
    """

    async def pace(size: int) -> None:
        rate = SCRUB_BUSY_BYTES_PER_S if busy() else SCRUB_BYTES_PER_S
        await sleep(size / rate)

    while True:
        found = await store.scrub_one(SCRUB_AGE_S, pace)
        await sleep(SCRUB_SHARD_S if found else SCRUB_IDLE_S)


async def remember(statuses: Statuses) -> None:
    """Keep the history that the status page shows."""
    while True:
        statuses.remember()
        await asyncio.sleep(SAMPLE_PERIOD_S)


def calm_collector() -> None:
    """Have garbage looked for less often, and never among what start-up made (the index above all).

    With Python's own thresholds the collector takes a fifth of the CPU time of small cold reads.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 20, 50)


def keep_freed_memory() -> None:
    """Have the allocator keep some of what is freed, instead of giving it back to the kernel each time.

    A message of gRPC is a mebibyte, which glibc would map and unmap anew: the page faults took more time
    than all the rest of a read over gRPC (docs/PERFORMANCE.md). Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, KEPT_PIECE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def raise_open_files_limit() -> None:
    """Take as many open files as we may: each warm shard keeps one open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, OPEN_FILES_MAX) if hard != resource.RLIM_INFINITY else OPEN_FILES_MAX
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
