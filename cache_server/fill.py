"""A fill: one shard on its way from the origin to a sealed file.

Two kinds behind one interface: a shard of one block comes in one go (`WholeFill`: reserve, fetch, seal),
a larger one block by block, as its readers ask (`BlockFill`, block_fill.py).

The fetches belong to the server, not to the reader that caused them: readers wait with `settled`, which
leaves the awaited future alone, so a reader that is cancelled disturbs neither the fetch nor the other
readers.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cache_server.flight import Spawn, settled
from cache_server.origins.origin import Fetched, Origin, Target, Want
from cache_server.slots import FetchSlots, Ticket
from cache_server.store.options import NoSpace
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from cache_server.store.volume import Partial
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import CorruptData, HotshardError, InternalError, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FillTools:
    """What every fill works with."""

    store: Store
    slots: FetchSlots
    geometry: Geometry
    spawn: Spawn
    """Starts a task that the server owns."""
    on_fill: Callable[[str, float], None]
    """Told how each fill ended ("sealed", "stale", "corrupt", "no_space", "failed", "dropped") and after
    how many seconds."""


class Fill(ABC):
    """One shard being filled. Use from the event loop only."""

    def __init__(self, key: ShardKey, info: ObjectInfo, origin: Origin, tools: FillTools) -> None:
        self.key = key
        self._info = info
        self._origin = origin
        self._tools = tools
        self._partial: Partial | None = None
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        self.sealed: asyncio.Future[OpenFile] = loop.create_future()
        """The finished file, or why there will be none."""

    @property
    def closed(self) -> bool:
        """Whether this fill takes no more requests: sealed, failed as a whole, or dropped."""
        return self.sealed.done()

    @property
    def disk_path(self) -> str:
        """The cache dir it fills, or ""."""
        return self._partial.volume.path if self._partial else ""

    @property
    @abstractmethod
    def idle(self) -> bool:
        """Whether it is partial and nothing happens with it: it may be dropped."""

    @property
    @abstractmethod
    def present_bytes(self) -> int:
        """How many bytes have arrived."""

    @abstractmethod
    async def want(self, start: int, stop: int, *, demand: bool = True) -> None:
        """Wait until [start, stop) of the shard is in the file, or the shard is sealed.

        Raises:
            HotshardError: what kept a block from coming; asking again tries again.
            NoSpace: no disk can take this shard.
        """

    @abstractmethod
    def ahead(self, start: int, stop: int) -> None:
        """Begin to fetch what is missing of [start, stop), behind all demand."""

    @abstractmethod
    def present_stop(self, start: int) -> int:
        """Up to where the bytes from `start` on are present without a gap."""

    @abstractmethod
    def reader(self) -> OpenFile:
        """A read-only descriptor of the partial file; only extents of present blocks are valid."""

    async def drop(self) -> None:
        """Give the partial file up, if nothing happens with it; later requests start a new fill."""
        if self.idle and not self.closed:
            await self._close(NoSpace("the partial shard was given up for its space"), "dropped")

    async def _fetch(self, block: int, length: int, algorithm: Algorithm) -> Fetched:
        assert self._partial is not None, "fetches start after begin"
        geometry = self._tools.geometry
        file_offset = block * geometry.block_bytes
        offset = self.key.index * geometry.shard_bytes + file_offset
        want = Want(self._info, offset, length, algorithm)
        return await self._origin.fetch(want, Target(self._partial.file.fd, file_offset))

    async def _seal(self, sums: list[int], algorithm: Algorithm, whole: Checksum | None) -> None:
        assert self._partial is not None, "blocks have arrived"
        partial, self._partial = self._partial, None  # the store disposes of it, come what may
        file = await self._tools.store.seal(partial, sums, algorithm, whole)
        self._told("sealed")
        self.sealed.set_result(file)

    async def _close(self, error: Exception, outcome: str = "") -> None:
        """End without a sealed file; idempotent."""
        if self.closed:
            return
        outcome = outcome or _outcome(error)
        self._told(outcome)
        log.info("fill of %s shard %d ended: %s", self.key.uri, self.key.index, outcome)
        fail(self.sealed, error)
        partial, self._partial = self._partial, None
        if partial is not None:
            await self._tools.store.discard(partial)

    def _reason(self, error: Exception) -> Exception:
        """What readers are told of an error in a fetch."""
        if isinstance(error, HotshardError | NoSpace):
            return error
        if isinstance(error, OSError) and self._partial is not None:
            # Not the origin but our own disk: no space, read-only, or broken.
            self._tools.store.report_write_error(self._partial, error)
            return NoSpace(f"{self._partial.volume.path}: {error.strerror}")
        log.error("filling %s", self.key.uri, exc_info=error)
        return InternalError(f"{type(error).__name__} while filling", uri=self.key.uri)

    def _told(self, outcome: str) -> None:
        self._tools.on_fill(outcome, asyncio.get_running_loop().time() - self._began_s)


class WholeFill(Fill):
    """A shard of at most one block, from reserving to sealing in one task.

    It is never handed out partial: sealing so little takes no time to speak of, and what is sealed can
    be leased.
    """

    def __init__(
        self,
        key: ShardKey,
        info: ObjectInfo,
        origin: Origin,
        tools: FillTools,
        *,
        demand: bool,
    ) -> None:
        super().__init__(key, info, origin, tools)
        self._demand = demand
        self._ticket: Ticket | None = None
        tools.spawn(self._run())

    @property
    def idle(self) -> bool:
        """Never: it is always on its way."""
        return False

    @property
    def present_bytes(self) -> int:
        """None, until it is sealed."""
        return 0

    async def want(self, start: int, stop: int, *, demand: bool = True) -> None:  # noqa: ARG002
        """Wait until it is sealed."""
        if demand and not self._demand:
            self._demand = True
            if self._ticket is not None:
                self._tools.slots.promote(self._ticket)
        await settled(self.sealed)
        self.sealed.result()

    def ahead(self, start: int, stop: int) -> None:
        """It is on its way already."""

    def present_stop(self, start: int) -> int:
        """Nothing is present before all is."""
        return start

    def reader(self) -> OpenFile:
        """Nothing to hand out before it is sealed."""
        raise AssertionError("present_stop() says that nothing is present")

    async def _run(self) -> None:
        try:
            if self.key.size:
                fetched = await self._fetch_all()
                whole = fetched.whole if self.key.size == self.key.object_size else None
                await self._seal([fetched.checksum], fetched.algorithm, whole)
            else:
                self._partial = await self._tools.store.begin(self.key)
                await self._seal([], Algorithm.XXH3_64, None)
        except asyncio.CancelledError:
            self.sealed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            await self._close(self._reason(error))

    async def _fetch_all(self) -> Fetched:
        """Fetch it once its turn has come; before that it holds neither file nor space."""
        slots = self._tools.slots
        self._ticket = ticket = slots.ask(demand=self._demand)
        await slots.acquire(ticket)
        try:
            self._partial = await self._tools.store.begin(self.key)
            return await self._fetch(0, self.key.size, Algorithm.XXH3_64)
        finally:
            slots.release(ticket)
            self._ticket = None


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Settle a future that perhaps nobody waits for."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at, so that asyncio does not warn of it


def _outcome(error: Exception) -> str:
    if isinstance(error, NoSpace):
        return "no_space"
    if isinstance(error, StaleObject):
        return "stale"
    return "corrupt" if isinstance(error, CorruptData) else "failed"
