"""Several caches in one process, as members of one cluster: real stores, real bulk ports, one origin."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from cache_server.cache import Cache
from cache_server.catalog import Catalog
from cache_server.cluster.blocks import ClusterBlocks
from cache_server.cluster.bulk_calls import BulkCalls, Identity
from cache_server.cluster.bulk_client import BulkOptions
from cache_server.cluster.bulk_server import BulkServer
from cache_server.cluster.origin import ClusterOrigin, GuardedOrigin
from cache_server.cluster.peers import PeerOptions, Peers
from cache_server.cluster.ports import PeerAddress
from cache_server.cluster.quick import GuardedQuick
from cache_server.fill import FillTools
from cache_server.metrics import Metrics
from cache_server.metrics.peers import PeerMetrics
from cache_server.origins.table import Mounted, OriginTable
from cache_server.requests import Requests
from cache_server.slots import FetchSlots
from cache_server.store.options import CacheDir, Space, StoreEvents, StoreOptions
from cache_server.store.store import Store
from cache_server.tasks import Tasks
from cache_server.transient import Transient
from hotshard.core.blocks import Geometry
from support.cache import GEOMETRY, read_opened
from support.memory_origin import MemoryOrigin, QuickMemory

CLUSTER = "test"


@dataclass
class FixedPlacement:
    """Ranks members by the digest alone; what a test changes, holds from then on."""

    me: str
    members: list[PeerAddress]
    previous: list[PeerAddress] = field(default_factory=list)
    view_version: int = 1
    replicas: int = 2
    suspected: list[str] = field(default_factory=list)

    def owners(self, digest: bytes) -> Sequence[PeerAddress]:
        return self._ranked(self.members, digest)[: self.replicas]

    def previous_owners(self, digest: bytes) -> Sequence[PeerAddress]:
        return self._ranked(self.previous, digest)[:1]

    def suspect(self, id_: str) -> None:
        self.suspected.append(id_)

    @staticmethod
    def _ranked(members: list[PeerAddress], digest: bytes) -> list[PeerAddress]:
        start = int.from_bytes(digest[:4], "big") % max(1, len(members))
        return members[start:] + members[:start]


@dataclass
class Member:
    cache: Cache
    store: Store
    origin: Any
    metrics: Metrics
    placement: FixedPlacement
    bulk: BulkServer
    peers: Peers
    blocks: ClusterBlocks
    tasks: Tasks
    quick: QuickMemory

    @property
    def address(self) -> PeerAddress:
        return PeerAddress(self.placement.me, "", f"127.0.0.1:{self.bulk.port}", "z")

    def count(self, name: str) -> float:
        return self.metrics.snapshot()[name]

    def received(self) -> float:
        return sum(
            v for k, v in self.metrics.snapshot().items() if k.startswith("hotshard_peer_received")
        )


def no_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of who is asked, and not of how soon.

    All members share the processor and the loop of the test: on a busy machine they all stand still for
    seconds, an attempt passes its deadline or is hedged, and the next source is asked, rightly.
    """
    monkeypatch.setattr("cache_server.core.hedge.TOKENS_MAX", 0.0)
    monkeypatch.setattr("cache_server.cluster.bulk_client.ATTEMPT_S", 60.0)
    monkeypatch.setattr("cache_server.cluster.bulk_client.CONNECT_S", 60.0)


@asynccontextmanager
async def member(
    path: Path,
    origin: Any,
    name: str,
    *,
    geometry: Geometry = GEOMETRY,
    secret: bytes = b"",
    cluster: str = CLUSTER,
    capacity_bytes: int = 64 << 20,
    quick: bool = True,
) -> AsyncIterator[Member]:
    """One member that knows of no other yet; `quick`: over an origin that begins fetches at once."""
    store = Store(
        [CacheDir(str(path), Space(size=capacity_bytes))],
        geometry=geometry,
        options=StoreOptions(free_space_floor=Space(size=1)),
        events=StoreEvents(),
    )
    await store.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = Tasks(group)
        stack.push_async_callback(tasks.cancel)
        metrics = Metrics("test", [origin.prefix])
        events = PeerMetrics(metrics.registry)
        placement = FixedPlacement(name, [])
        peers = Peers(
            placement, PeerOptions(bulk=BulkOptions(cluster=cluster, secret=secret)), events
        )
        stack.push_async_callback(peers.close)
        blocks = ClusterBlocks(placement, peers, geometry, events)
        guarded = GuardedOrigin(origin, tasks.spawn)
        shared = ClusterOrigin(origin, guarded, placement, peers, blocks)
        begins = QuickMemory(origin, group)
        mounted = Mounted(shared, source=guarded, peers=blocks)
        if quick:
            mounted = replace(mounted, quick=GuardedQuick(begins, guarded))
        table = OriginTable([mounted])
        slots = FetchSlots(8, 4)
        catalog = Catalog(
            table,
            spawn=tasks.spawn,
            clock=time.monotonic,
            recall=store.recall,
            entries_max=10_000,
        )
        transient = Transient(
            4 * geometry.block_bytes,
            geometry=geometry,
            slots=slots,
            spawn=tasks.spawn,
            on_bytes=metrics.reads.moved,
        )
        tools = FillTools(store, slots, geometry, tasks.spawn, metrics.fill, metrics.reads.moved)
        cache = Cache(table, catalog, transient, tools, metrics)
        identity = Identity(
            cluster=cluster,
            secret=secret,
            shard_bytes=geometry.shard_bytes,
            owns=blocks.is_ours,
            view=lambda: placement.view_version,
        )
        bulk = BulkServer(
            "127.0.0.1",
            0,
            BulkCalls(cache, identity, guarded.whole_checksum, Requests(metrics, slow_s=0.0)),
            events,
        )
        await bulk.start()
        tasks.spawn(bulk.run())
        stack.push_async_callback(bulk.close, 1.0)
        yield Member(cache, store, origin, metrics, placement, bulk, peers, blocks, tasks, begins)


@asynccontextmanager
async def cluster(
    path: Path, count: int, origin: MemoryOrigin | None = None, **options: Any
) -> AsyncIterator[tuple[MemoryOrigin, list[Member]]]:
    """Members that know each other, over one origin."""
    origin = origin or MemoryOrigin()
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(member(path / f"m{i}", origin, f"m{i}", **options))
            for i in range(count)
        ]
        introduce(members)
        yield origin, members


def introduce(members: Sequence[Member]) -> None:
    addresses = [each.address for each in members]
    for each in members:
        each.placement.members = list(addresses)


async def read(asked: Member, uri: str, length: int = 1 << 40, version: str = "") -> bytes:
    """Read an object the way a client does."""
    found = bytearray()
    while True:
        opened = await asked.cache.open(uri, version, len(found), min(length, 1 << 20))
        version = opened.info.version
        data = read_opened(opened, len(found), length - len(found))
        found += data
        if not data or len(found) >= length:
            return bytes(found)
