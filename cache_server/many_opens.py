"""Opening many small objects at once: what is asked in one message is planned together.

    sealed, descriptor open          from memory
    sealed                           one hop to the store for all
    known, of one block, not here    one fill each, one wait for all
    anything else                    the read path (cache.py), each in a task

So a small object costs no task and no future of its own on its way through here.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cache_server.catalog import Catalog
from cache_server.fill import Fill, FillTools
from cache_server.flight import all_settled
from cache_server.metrics import Metrics
from cache_server.opened import Ask, FileExtent, Opened
from cache_server.origins.table import Mounted, OriginTable
from cache_server.scope import step
from cache_server.store.options import NotAdmitted
from cache_server.store.shard import ShardKey
from cache_server.whole_fill import WholeFill
from hotshard.core.blocks import shard_digest
from hotshard.core.errors import CorruptData, HotshardError, InternalError, StaleObject
from hotshard.core.objects import ObjectInfo


class StartFill(Protocol):
    """The fill of a shard, begun if there is none."""

    def __call__(self, mounted: Mounted, info: ObjectInfo, key: ShardKey, *, demand: bool) -> Fill:
        """Give it; raises NotAdmitted: the shard is not to be kept."""


@dataclass(frozen=True, slots=True)
class OneByOne:
    """What the read path does for one object."""

    open_now: Callable[[str, str, int, int], Opened | None]
    open: Callable[[str, str, int, int], Coroutine[Any, Any, Opened]]
    fill: StartFill
    streamed: Callable[..., Coroutine[Any, Any, tuple[list[FileExtent], bool]]]


class ManyOpens:
    """See the module. Use from the event loop only."""

    def __init__(
        self,
        one: OneByOne,
        table: OriginTable,
        catalog: Catalog,
        tools: FillTools,
        metrics: Metrics,
    ) -> None:
        self._one = one
        self._table = table
        self._catalog = catalog
        self._store = tools.store
        self._geometry = tools.geometry
        self._metrics = metrics

    async def open(self, asks: Sequence[Ask]) -> list[Opened | HotshardError]:
        """Open all; each answer is an opening or its error."""
        answers = [self._open_now(ask) for ask in asks]
        cold = [i for i, answer in enumerate(answers) if answer is None]
        if cold and await self._open_descriptors([asks[i] for i in cold]):
            for i in cold:
                answers[i] = self._open_now(asks[i])
            cold = [i for i in cold if answers[i] is None]
        async with asyncio.TaskGroup() as group:
            filling: list[tuple[int, ObjectInfo, WholeFill]] = []
            for i in cold:
                try:
                    found = self._small_fill(asks[i])
                except NotAdmitted:
                    group.create_task(_into(answers, i, self._streamed(asks[i])))
                    continue
                if found is not None:
                    filling.append((i, *found))
                else:
                    group.create_task(_into(answers, i, self._open(asks[i])))
            with step("origin", "GET"):
                await all_settled([fill.wanted() for _, _, fill in filling])
            for i, info, fill in filling:
                answers[i] = self._filled(info, fill)
                if answers[i] is None:
                    group.create_task(_into(answers, i, self._open(asks[i])))
        return [a if a is not None else InternalError("not answered") for a in answers]

    def _open_now(self, ask: Ask) -> Opened | HotshardError | None:
        return self._one.open_now(ask.uri, ask.version, ask.offset, ask.length)

    def _open(self, ask: Ask) -> Coroutine[Any, Any, Opened]:
        return self._one.open(ask.uri, ask.version, ask.offset, ask.length)

    async def _streamed(self, ask: Ask) -> Opened:
        """What the policy has just refused; it is not asked a second time."""
        mounted = self._table.covering(ask.uri)
        info = self._catalog.known(ask.uri)
        assert mounted is not None and info is not None, "_small_fill() has found both"  # noqa: PT018
        piece = next(self._geometry.pieces(info.size, ask.offset, ask.length))
        try:
            extents, _ = await self._one.streamed(mounted, info, piece, forwarded=False)
        except StaleObject:
            self._catalog.forget(info.uri)
            raise
        return Opened(info, tuple(extents), self._catalog.lease_s(info.uri))

    async def _open_descriptors(self, asks: Sequence[Ask]) -> bool:
        """Open the sealed shards among these in one go, so that `open_now` finds them; whether any."""
        digests = []
        for ask in asks:
            fresh = self._catalog.fresh(ask.uri)
            if fresh is not None:
                index = ask.offset // self._geometry.shard_bytes
                digest = shard_digest(ask.uri, fresh[0].version, index)
                if self._store.contains(digest):
                    digests.append(digest)
        if digests:
            await self._store.open_many(digests)
        return bool(digests)

    def _small_fill(self, ask: Ask) -> tuple[ObjectInfo, WholeFill] | None:
        """The fill of an object of one block that is known and not here; None: `open` it.

        Raises:
            NotAdmitted: it is not to be kept.
        """
        fresh = self._catalog.fresh(ask.uri)
        if fresh is None:
            return None
        info = fresh[0]
        mounted = self._table.covering(info.uri)
        if (
            mounted is None
            or info.size > self._geometry.block_bytes
            or ask.offset >= info.size
            or not ask.length
            or (ask.version and ask.version != info.version)
        ):
            return None
        key = ShardKey.of(info, 0, self._geometry)
        if self._store.contains(key.digest):
            return None
        fill = self._one.fill(mounted, info, key, demand=True)
        if not isinstance(fill, WholeFill):
            return None
        self._metrics.shard_lookup("miss", min(ask.length, info.size - ask.offset), info.uri)
        return info, fill

    def _filled(self, info: ObjectInfo, fill: WholeFill) -> Opened | HotshardError | None:
        """What a settled fill comes to; None: `open` knows what else can be done."""
        if fill.sealed.cancelled():
            return None
        error = fill.sealed.exception()
        if error is None:
            extent = FileExtent(0, info.size, fill.sealed.result(), 0, sealed=True)
            return Opened(info, (extent,), self._catalog.lease_s(info.uri))
        if isinstance(error, StaleObject):
            self._catalog.forget(info.uri)
        elif isinstance(error, CorruptData) or not isinstance(error, HotshardError):
            return None
        return error


async def _into(
    answers: list[Opened | HotshardError | None], i: int, work: Coroutine[Any, Any, Opened]
) -> None:
    try:
        answers[i] = await work
    except HotshardError as error:
        answers[i] = error
