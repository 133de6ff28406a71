"""Stores on temporary directories, and content to fill them with."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO

from cache_server.store.options import CacheDir, ShardReport, Space, StoreEvents, StoreOptions
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

KIB = 1024
GEOMETRY = Geometry(shard_bytes=4 << 20, block_bytes=64 * KIB)


class WatchedStore(Store):
    """A store that counts its events."""

    events_seen: Counter[object]


def make_key(uri: str, size: int, index: int = 0, geometry: Geometry = GEOMETRY) -> ShardKey:
    """The key of one shard of an object."""
    info = ObjectInfo(uri=uri, version="v1", size=size, mtime_ns=1)
    return ShardKey.of(info, index, geometry)


def content_of(key: ShardKey) -> bytes:
    """Bytes that belong to this key alone."""
    return random.Random(key.digest).randbytes(key.size)


def sums_of(content: bytes, algorithm: Algorithm, geometry: Geometry = GEOMETRY) -> list[int]:
    """Its block checksums."""
    step = geometry.block_bytes
    return [checksum(algorithm, content[at : at + step]) for at in range(0, len(content), step)]


async def fill(store, key, *, content=None, algorithm=Algorithm.XXH3_64, whole=None):
    """Begin, write and seal a shard; its content and its file."""
    content = content_of(key) if content is None else content
    partial = await store.begin(key)
    os.pwrite(partial.file.fd, content, 0)
    return content, await store.seal(partial, sums_of(content, algorithm), algorithm, whole)


def dataset_of(uri: str) -> str:
    """Up to the first "/" of the key."""
    return "/".join(uri.split("/")[:4]) + "/"


def new_store(path, *, disks=1, capacity=1 << 30, geometry=GEOMETRY, dirs=None, **options):
    """A store that is not started yet."""
    seen: Counter[object] = Counter()

    def count(name):
        def add(*values):
            seen[name] += 1
            if isinstance(values[0], str):
                seen[name, values[0]] += 1

        return add

    events = StoreEvents(
        sealed=count("sealed"),
        evicted=count("evicted"),
        quarantined=count("quarantined"),
        disk_state=count("disk_state"),
    )
    if dirs is None:
        dirs = [CacheDir(str(path / f"disk{n}"), Space(capacity)) for n in range(disks)]
    options.setdefault("free_space_floor", Space(fraction=0.001))
    options.setdefault("dataset_of", dataset_of)
    store = WatchedStore(dirs, geometry=geometry, options=StoreOptions(**options), events=events)
    store.events_seen = seen
    return store


@asynccontextmanager
async def make_store(path, **options) -> AsyncIterator[WatchedStore]:
    """A started store that is closed cleanly."""
    store = new_store(path, **options)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


def report_of(store: Store, key: ShardKey) -> ShardReport:
    """The report of a shard that must be there."""
    report = store.describe(key.digest)
    assert report is not None
    return report


def spoiling(path: str) -> BinaryIO:
    """A cached file to be written to behind its store's back, as its owner can: it is read-only."""
    os.chmod(path, 0o600)
    return open(path, "r+b")


async def opened(store: Store, key: ShardKey) -> OpenFile:
    """The file of a shard that must be there."""
    file = await store.open(key.digest)
    assert file is not None
    return file


def closing(store: Store, disk: int) -> asyncio.Future[None]:
    """The shutdown of a disk that has failed."""
    future = store._disks.all[disk].closing
    assert future is not None
    return future


async def crash(store: Store) -> None:
    """Leave a store as kill -9 would, but for the threads, which are let go."""
    for disk in store._disks.all:
        volume, disk.volume = disk.volume, None
        if volume is not None:
            volume.dead = True
            await store._shelf.run(partial(volume.close, boot_id=""))
    store._shelf.close()


async def until(true: Callable[[], bool]) -> None:
    """Let other work go on until something holds; the test's timeout is the limit."""
    while not true():
        await asyncio.sleep(0.001)
