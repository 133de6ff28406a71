"""A whole cache in one process: real store, real read path, an origin in memory."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cache_server.cache import Cache
from cache_server.catalog import Catalog
from cache_server.fill import FillTools
from cache_server.metrics import Metrics
from cache_server.opened import Opened
from cache_server.origins.table import Mounted, OriginTable
from cache_server.slots import FetchSlots
from cache_server.store.options import CacheDir, Space, StoreEvents, StoreOptions
from cache_server.store.store import Store
from cache_server.tasks import Tasks
from cache_server.transient import Transient
from cache_server.warm import Warmer
from hotshard.core.blocks import Geometry
from support.memory_origin import MemoryOrigin

BLOCK = 4096
GEOMETRY = Geometry(shard_bytes=8 * BLOCK, block_bytes=BLOCK)


@dataclass
class CacheWorld:
    cache: Cache
    origin: MemoryOrigin
    store: Store
    warmer: Warmer
    metrics: Metrics
    tasks: Tasks

    def count(self, name: str) -> float:
        return self.metrics.snapshot()[name]


@asynccontextmanager
async def cache_world(
    path: Path,
    origin: MemoryOrigin | None = None,
    *,
    capacity_bytes: int = 64 << 20,
    memory_bytes: int = 8 * BLOCK,
    slots: int = 8,
    **freshness,
) -> AsyncIterator[CacheWorld]:
    origin = origin or MemoryOrigin()
    metrics = Metrics("test", [origin.prefix])
    store = Store(
        [CacheDir(str(path), Space(size=capacity_bytes))],
        geometry=GEOMETRY,
        options=StoreOptions(free_space_floor=Space(size=1)),
        events=StoreEvents(sealed=metrics.sealed, evicted=metrics.evicted),
    )
    await store.start()
    try:
        async with asyncio.TaskGroup() as group:
            tasks = Tasks(group)
            table = OriginTable([Mounted(origin, **freshness)])
            fetch_slots = FetchSlots(slots, max(1, slots // 2))
            catalog = Catalog(
                table,
                spawn=tasks.spawn,
                clock=time.monotonic,
                recall=store.recall,
                entries_max=10_000,
            )
            transient = Transient(
                memory_bytes,
                geometry=GEOMETRY,
                slots=fetch_slots,
                spawn=tasks.spawn,
                on_bytes=metrics.reads.moved,
            )
            tools = FillTools(
                store, fetch_slots, GEOMETRY, tasks.spawn, metrics.fill, metrics.reads.moved
            )
            cache = Cache(table, catalog, transient, tools, metrics)
            yield CacheWorld(cache, origin, store, Warmer(cache, tasks.spawn), metrics, tasks)
            await tasks.cancel()
    finally:
        await store.close()


def read_opened(opened: Opened, offset: int, length: int) -> bytes:
    """The bytes of [offset, offset + length) that the extents hold, up to where they end."""
    found = bytearray()
    for extent in opened.extents:
        start = max(offset + len(found), extent.object_offset)
        stop = min(offset + length, extent.object_offset + extent.length)
        if stop > start:
            at = extent.file_offset + start - extent.object_offset
            found += os.pread(extent.file.fd, stop - start, at)
    return bytes(found)


async def read(
    world: CacheWorld, uri: str, offset: int = 0, length: int = 1 << 40, version: str = ""
) -> bytes:
    """Read a range the way a client does: open, read what came, ask for the rest."""
    found = bytearray()
    while True:
        at = offset + len(found)
        opened = await world.cache.open(uri, version, at, min(length - len(found), BLOCK))
        version = opened.info.version
        data = read_opened(opened, at, length - len(found))
        found += data
        if not data or len(found) >= length:
            return bytes(found)
