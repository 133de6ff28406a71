"""A fill: one shard on its way from the origin to a sealed file.

Two kinds behind one interface: a shard of one block comes in one go (`WholeFill`, whole_fill.py), a larger
one block by block, as its readers ask (`BlockFill`, block_fill.py).

The fetches belong to the server, not to the reader that caused them: readers wait with `settled`, which
leaves the awaited future alone, so a reader that is cancelled disturbs neither the fetch nor the other
readers.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cache_server.block_flight import BlockFlight
from cache_server.flight import Spawn, fail
from cache_server.origins.origin import Fetched, PeerBlocks, Target, Want
from cache_server.origins.table import Mounted
from cache_server.scope import step
from cache_server.slots import FetchSlots
from cache_server.store.options import NoSpace, NotAdmitted
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from cache_server.store.verify import Sums
from cache_server.store.volume import Partial
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import (
    CorruptData,
    HotshardError,
    InternalError,
    OriginUnavailable,
    StaleObject,
)
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
    on_bytes: Callable[[str, str, int], None]
    """Told of each block that came: uri, where from ("peer", "origin"), bytes."""


class Fill(ABC):
    """One shard being filled. Use from the event loop only."""

    def __init__(self, key: ShardKey, info: ObjectInfo, mounted: Mounted, tools: FillTools) -> None:
        self.key = key
        self._info = info
        self._mounted = mounted
        self._tools = tools
        self._partial: Partial | None = None
        loop = asyncio.get_running_loop()
        self.began_s = loop.time()
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

    @property
    def present_blocks(self) -> int:
        """Bit i: block i has arrived."""
        return 0

    @abstractmethod
    async def want(
        self, start: int, stop: int, *, demand: bool = True, forwarded: bool = False
    ) -> None:
        """Wait until [start, stop) of the shard is in the file, or the shard is sealed.

        Args:
            start: first byte.
            stop: past the last byte.
            demand: a reader waits for it.
            forwarded: another member of the cluster waits for it: blocks come from the origin.

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
    def sums(self, start: int, stop: int) -> Sums | None:
        """The checksums of the blocks of [start, stop), if all are present and it is whole blocks."""

    @abstractmethod
    def reader(self) -> OpenFile:
        """A read-only descriptor of the partial file; only extents of present blocks are valid."""

    async def drop(self) -> None:
        """Give the partial file up, if nothing happens with it; later requests start a new fill."""
        if self.idle and not self.closed:
            await self._close(NoSpace("the partial shard was given up for its space"), "dropped")

    def _want(self, block: int, algorithm: Algorithm) -> tuple[Want, int]:
        """A block as its origin knows it, and where it goes in the file."""
        geometry = self._tools.geometry
        file_offset = block * geometry.block_bytes
        offset = self.key.index * geometry.shard_bytes + file_offset
        length = geometry.block_size(self.key.size, block)
        return Want(self._info, offset, length, algorithm), file_offset

    async def _fetch(
        self,
        block: int,
        algorithm: Algorithm,
        flight: BlockFlight,
        go_on: Callable[[], Coroutine[Any, Any, Fetched]] | None = None,
    ) -> Fetched:
        """A block, from the peers or else from the origin.

        Peers are asked without a slot: two full nodes would wait for each other. A flight that has its
        slot already keeps it; `go_on` is the rest of a fetch that was begun.
        """
        want, file_offset = self._want(block, algorithm)
        peers = self._mounted.peers
        if peers is not None and go_on is None:
            target = Target((await self._file()).fd, file_offset)
            found = await self._from_peers(peers, want, target, flight)
            if found is not None:
                self._tools.on_bytes(self.key.uri, "peer", want.length)
                return found
        slots = self._tools.slots
        if flight.ticket is None:
            flight.ticket = slots.ask(demand=flight.demand)
            with step("slot"):
                await slots.acquire(flight.ticket)
        try:
            target = Target((await self._file()).fd, file_offset)
            fetched = await self._from_origin(want, target, flight, go_on)
        finally:
            slots.release(flight.ticket)
        self._tools.on_bytes(self.key.uri, "origin", want.length)
        return fetched

    async def _from_origin(
        self,
        want: Want,
        target: Target,
        flight: BlockFlight,
        go_on: Callable[[], Coroutine[Any, Any, Fetched]] | None,
    ) -> Fetched:
        if go_on is not None:
            peers = self._mounted.peers
            if peers is None or not flight.ours:
                return await go_on()
            with suppress(OriginUnavailable):
                return await peers.helped(want, target, go_on)
        try:
            return await self._mounted.for_asker(forwarded=flight.forwarded).fetch(want, target)
        except OriginUnavailable:
            if not (flight.forwarded and flight.ours):
                raise
        return await self._mounted.origin.fetch(want, target)

    async def _file(self) -> OpenFile:
        """The file to write to; before it is needed the shard holds neither file nor space."""
        if self._partial is None:
            self._partial = await self._tools.store.begin(self.key)
        return self._partial.file

    async def _from_peers(
        self, peers: PeerBlocks, want: Want, target: Target, flight: BlockFlight
    ) -> Fetched | None:
        if not flight.forwarded:
            try:
                async with asyncio.timeout(None) as asking:
                    flight.asking = asking
                    return await peers.fetch(want, target, forwarded=False, demand=flight.demand)
            except TimeoutError:
                if not flight.forwarded:
                    raise
            finally:
                flight.asking = None
        return await peers.fetch(want, target, forwarded=True, demand=flight.demand)

    def _join(self, flight: BlockFlight, *, demand: bool, forwarded: bool) -> None:
        """Someone else waits for a block that is on its way."""
        if demand and not flight.demand:
            flight.demand = True
            if flight.ticket is not None:
                self._tools.slots.promote(flight.ticket)
        if forwarded:
            flight.wanted_by_member()
        else:
            flight.ours = True

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
        self._tools.on_fill(outcome, asyncio.get_running_loop().time() - self.began_s)


def _outcome(error: Exception) -> str:
    if isinstance(error, NoSpace):
        return "not_admitted" if isinstance(error, NotAdmitted) else "no_space"
    if isinstance(error, StaleObject):
        return "stale"
    return "corrupt" if isinstance(error, CorruptData) else "failed"
