"""A fill: one shard on its way from the origin to a sealed file.

Life of a fill: created by the first reader -> `store.begin` reserves space -> blocks are fetched, each
once, whoever asks for it and however often -> the last block to arrive seals the shard -> gone. Blocks
nobody asked for are fetched only as read-ahead. Between requests a fill just sits there, partial.

The fetches belong to the server, not to the reader that caused them: readers wait with `asyncio.wait`,
which leaves the awaited futures alone, so a reader that is cancelled disturbs neither the fetch nor the
other readers. A failed block fails those who wait for it, and is fetched anew when asked for again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cache_server.core.readahead import worth_finishing
from cache_server.flight import Spawn
from cache_server.origins.origin import Fetched, PeerBlocks, Target, Want
from cache_server.origins.table import Mounted
from cache_server.slots import FetchSlots, Ticket
from cache_server.store.options import NoSpace
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from cache_server.store.verify import Sums
from cache_server.store.volume import Partial
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import HotshardError, InternalError, StaleObject
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


class _Flight:
    """One block on its way."""

    __slots__ = ("arrival", "asking", "demand", "forwarded", "ticket")

    def __init__(self, arrival: "asyncio.Future[None]", *, demand: bool, forwarded: bool) -> None:
        self.arrival = arrival
        self.demand = demand
        self.forwarded = forwarded
        self.ticket: Ticket | None = None
        """Its place in the queue for the origin, once it stands there."""
        self.asking: asyncio.Timeout | None = None
        """While peers are asked for it."""

    def wanted_by_member(self) -> None:
        """A member waits for it, perhaps the very one that we are asking: stop waiting for members."""
        if not self.forwarded:
            self.forwarded = True
            if self.asking is not None:
                self.asking.reschedule(asyncio.get_running_loop().time())


class Fill:
    """One shard being filled. Use from the event loop only."""

    def __init__(self, key: ShardKey, info: ObjectInfo, mounted: Mounted, tools: FillTools) -> None:
        self.key = key
        self._info = info
        self._mounted = mounted
        self._tools = tools
        self._blocks = tools.geometry.block_count(key.size)
        self._present = 0  # bit i: block i is in the file
        self._sums = [0] * self._blocks
        self._algorithm = Algorithm.XXH3_64
        self._whole: Checksum | None = None
        self._partial: Partial | None = None
        self._fetching: dict[int, _Flight] = {}
        self._ahead = range(0)  # asked for before there was a file
        loop = asyncio.get_running_loop()
        self._began_s = loop.time()
        self._begun: asyncio.Future[None] = loop.create_future()
        self.sealed: asyncio.Future[OpenFile] = loop.create_future()
        """The finished file, or why there will be none."""
        tools.spawn(self._begin())

    @property
    def closed(self) -> bool:
        """Whether this fill takes no more requests: sealed, failed as a whole, or dropped."""
        return self.sealed.done()

    @property
    def idle(self) -> bool:
        """Whether nothing is being fetched or sealed."""
        return self._begun.done() and not self._fetching

    @property
    def present_bytes(self) -> int:
        """How many bytes have arrived."""
        geometry, size = self._tools.geometry, self.key.size
        return sum(
            geometry.block_size(size, block)
            for block in range(self._blocks)
            if self._present >> block & 1
        )

    @property
    def disk_path(self) -> str:
        """The cache dir it fills, or ""."""
        return self._partial.volume.path if self._partial else ""

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
            HotshardError: what kept a block from coming.
            NoSpace: no disk can take this shard.
        """
        await self._wait([self._begun])
        if self.closed:
            self.sealed.result()
            return
        waits = self._start(
            self._tools.geometry.blocks(start, stop), demand=demand, forwarded=forwarded
        )
        await self._wait(waits)
        if self._blocks <= 1:
            # Sealing one block takes no time to speak of, and a sealed file can be leased.
            await self._wait([self.sealed])

    def ahead(self, start: int, stop: int) -> None:
        """Begin to fetch what is missing of [start, stop), behind all demand."""
        blocks = self._tools.geometry.blocks(start, min(stop, self.key.size))
        if not self._begun.done():
            self._ahead = blocks
        elif not self.closed:
            self._start(blocks, demand=False)

    def reader(self) -> OpenFile:
        """A read-only descriptor of the partial file; only extents of present blocks are valid."""
        assert self._partial is not None, "want() came first"
        return self._partial.reader

    def present_stop(self, start: int) -> int:
        """Up to where the bytes from `start` on are present without a gap."""
        block_bytes = self._tools.geometry.block_bytes
        block = start // block_bytes
        while block < self._blocks and self._present >> block & 1:
            block += 1
        return max(start, min(block * block_bytes, self.key.size))

    async def drop(self) -> None:
        """Give the partial file up; later requests start a new fill. Only for an idle fill."""
        assert self.idle, "a fill with fetches in flight cannot be dropped"
        if not self.closed:
            await self._close("dropped", NoSpace("the partial shard was given up for its space"))

    async def _begin(self) -> None:
        try:
            self._partial = await self._tools.store.begin(self.key)
            if self._blocks > 1 and self.key.size == self.key.object_size:
                self._whole = await self._mounted.origin.whole_checksum(self._info)
                if self._whole is not None:
                    self._algorithm = self._whole.algorithm
        except (HotshardError, NoSpace) as error:
            _fail(self._begun, error)
            outcome = "no_space" if isinstance(error, NoSpace) else "failed"
            await self._close(outcome, error)
        else:
            self._begun.set_result(None)
            self._start(self._ahead, demand=False)
            if not self._blocks:
                await self._seal()

    def sums(self, start: int, stop: int) -> Sums | None:
        """The checksums of the blocks of [start, stop), which begins and ends with a block."""
        geometry = self._tools.geometry
        blocks = geometry.blocks(start, stop)
        if start % geometry.block_bytes or not all(self._present >> b & 1 for b in blocks):
            return None
        return Sums(self._algorithm, geometry.block_bytes, [self._sums[block] for block in blocks])

    def _start(
        self, blocks: Sequence[int], *, demand: bool, forwarded: bool = False
    ) -> list[asyncio.Future[None]]:
        """Make sure each block is present or on its way; return what to wait for."""
        waits = []
        for block in blocks:
            if self._present >> block & 1:
                continue
            flight = self._fetching.get(block)
            if flight is None:
                arrival = asyncio.get_running_loop().create_future()
                flight = _Flight(arrival, demand=demand, forwarded=forwarded)
                self._fetching[block] = flight
                self._tools.spawn(self._fetch(block, flight))
            else:
                self._join(flight, demand=demand, forwarded=forwarded)
            waits.append(flight.arrival)
        return waits

    def _join(self, flight: _Flight, *, demand: bool, forwarded: bool) -> None:
        if demand and not flight.demand:
            flight.demand = True
            if flight.ticket is not None:
                self._tools.slots.promote(flight.ticket)
        if forwarded:
            flight.wanted_by_member()

    async def _fetch(self, block: int, flight: _Flight) -> None:
        error: Exception | None = None
        try:
            await self._fetch_block(block, flight)
        except asyncio.CancelledError:
            flight.arrival.cancel()
            raise
        except (HotshardError, OSError) as failure:
            error = failure
        except Exception as failure:  # a defect must fail the readers, not leave them waiting
            log.exception("fetch of block %d of %s", block, self.key.uri)
            error = InternalError(f"{type(failure).__name__} while filling", uri=self.key.uri)
        finally:
            if error is None:
                del self._fetching[block]
        if error is not None:
            await self._failed(block, flight.arrival, error)
            return
        self._present |= 1 << block
        flight.arrival.set_result(None)
        await self._after_block()

    async def _fetch_block(self, block: int, flight: _Flight) -> None:
        assert self._partial is not None, "fetches start after begin"
        geometry = self._tools.geometry
        file_offset = block * geometry.block_bytes
        length = geometry.block_size(self.key.size, block)
        offset = self.key.index * geometry.shard_bytes + file_offset
        want = Want(self._info, offset, length, self._algorithm)
        fetched = await self._fetched(want, Target(self._partial.file.fd, file_offset), flight)
        self._sums[block] = fetched.checksum
        if self._blocks == 1:
            self._algorithm = fetched.algorithm
            self._whole = fetched.whole if length == self.key.object_size else None

    async def _fetched(self, want: Want, target: Target, flight: _Flight) -> Fetched:
        """From the peers, who are asked without a slot: two full nodes would wait for each other."""
        peers = self._mounted.peers
        if peers is not None:
            found = await self._from_peers(peers, want, target, flight)
            if found is not None:
                return found
        slots = self._tools.slots
        flight.ticket = slots.ask(demand=flight.demand)
        await slots.acquire(flight.ticket)
        try:
            origin = self._mounted.for_asker(forwarded=flight.forwarded)
            return await origin.fetch(want, target)
        finally:
            slots.release(flight.ticket)

    async def _from_peers(
        self, peers: PeerBlocks, want: Want, target: Target, flight: _Flight
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

    async def _failed(self, block: int, arrival: "asyncio.Future[None]", error: Exception) -> None:
        if not isinstance(error, HotshardError) and isinstance(error, OSError):
            # Not the origin but our own disk: no space, read-only, or broken.
            assert self._partial is not None, "it was written to"
            self._tools.store.report_write_error(self._partial, error)
            error = NoSpace(f"{self._partial.volume.path}: {error.strerror}")
        del self._fetching[block]
        _fail(arrival, error)
        # Other blocks of the same shard fail the same way; the last one to do so ends the fill.
        if isinstance(error, NoSpace | StaleObject) and not self._fetching:
            await self._close("stale" if isinstance(error, StaleObject) else "no_space", error)

    async def _after_block(self) -> None:
        if self._present == (1 << self._blocks) - 1:
            await self._seal()
        elif self._blocks > 1 and worth_finishing(self._present.bit_count(), self._blocks):
            self._start(range(self._blocks), demand=False)

    async def _seal(self) -> None:
        assert self._partial is not None, "blocks have arrived"
        try:
            file = await self._tools.store.seal(
                self._partial, self._sums, self._algorithm, self._whole
            )
        except (HotshardError, NoSpace) as error:
            self._partial = None  # the store has disposed of it
            await self._close("no_space" if isinstance(error, NoSpace) else "corrupt", error)
        else:
            self._told("sealed")
            self.sealed.set_result(file)

    async def _close(self, outcome: str, error: Exception) -> None:
        if self.closed:
            return
        self._told(outcome)
        log.info("fill of %s shard %d ended: %s", self.key.uri, self.key.index, outcome)
        _fail(self.sealed, error)
        partial, self._partial = self._partial, None
        if partial is not None:
            await self._tools.store.discard(partial)

    def _told(self, outcome: str) -> None:
        self._tools.on_fill(outcome, asyncio.get_running_loop().time() - self._began_s)

    async def _wait(self, futures: Sequence["asyncio.Future[Any]"]) -> None:
        pending = [future for future in futures if not future.done()]
        if pending:
            await asyncio.wait(pending)
        for future in futures:
            future.result()


def _fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody has to be waiting for it
