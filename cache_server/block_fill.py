"""A fill of a shard with several blocks: each is fetched once, whoever asks for it and however often.

Life: created by the first reader -> `store.begin` reserves space -> blocks are fetched as they are asked
for, or as read-ahead -> the last one to arrive seals the shard. Between requests it just sits there,
partial. A failed block fails those who wait for it, and is fetched anew when asked for again.
"""

import asyncio
from collections.abc import Iterable, Sequence

from cache_server.core.readahead import worth_finishing
from cache_server.fill import Fill, FillTools, fail
from cache_server.flight import settled
from cache_server.origins.origin import Origin
from cache_server.slots import Ticket
from cache_server.store.options import NoSpace
from cache_server.store.shard import ShardKey
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


class BlockFill(Fill):
    """See the module."""

    def __init__(self, key: ShardKey, info: ObjectInfo, origin: Origin, tools: FillTools) -> None:
        super().__init__(key, info, origin, tools)
        self._blocks = tools.geometry.block_count(key.size)
        self._present = 0  # bit i: block i is in the file
        self._sums = [0] * self._blocks
        self._algorithm = Algorithm.XXH3_64
        self._whole: Checksum | None = None
        self._fetching: dict[int, asyncio.Future[None]] = {}
        self._tickets: dict[int, Ticket] = {}
        self._ahead = range(0)  # asked for before there was a file
        self._reader: OpenFile | None = None
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        tools.spawn(self._begin())

    @property
    def idle(self) -> bool:
        """Whether nothing is being fetched or sealed."""
        all_here = self._present.bit_count() == self._blocks
        return self._begun.done() and not self._fetching and not all_here

    @property
    def present_bytes(self) -> int:
        """How many bytes have arrived."""
        geometry, size = self._tools.geometry, self.key.size
        return sum(
            geometry.block_size(size, block)
            for block in range(self._blocks)
            if self._present >> block & 1
        )

    async def want(self, start: int, stop: int, *, demand: bool = True) -> None:
        """Wait until [start, stop) of the shard is in the file, or the shard is sealed."""
        await settled(self._begun)
        self._begun.result()
        if self.closed:
            self.sealed.result()
            return
        for arrival in self._start(self._tools.geometry.blocks(start, stop), demand=demand):
            await settled(arrival)
            arrival.result()

    def ahead(self, start: int, stop: int) -> None:
        """Begin to fetch what is missing of [start, stop), behind all demand."""
        blocks = self._tools.geometry.blocks(start, min(stop, self.key.size))
        if not self._begun.done():
            self._ahead = blocks
        elif not self.closed:
            self._start(blocks, demand=False)

    def present_stop(self, start: int) -> int:
        """Up to where the bytes from `start` on are present without a gap."""
        block_bytes = self._tools.geometry.block_bytes
        block = start // block_bytes
        while block < self._blocks and self._present >> block & 1:
            block += 1
        return max(start, min(block * block_bytes, self.key.size))

    def reader(self) -> OpenFile:
        """A read-only descriptor of the file; valid while it is sealed, too."""
        assert self._reader is not None, "want() came first"
        return self._reader

    async def _begin(self) -> None:
        try:
            self._partial = await self._tools.store.begin(self.key)
            self._reader = self._partial.reader
            if self.key.size == self.key.object_size:
                self._whole = await self._origin.whole_checksum(self._info)
                if self._whole is not None:
                    self._algorithm = self._whole.algorithm
        except asyncio.CancelledError:
            self._begun.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            reason = self._reason(error)
            fail(self._begun, reason)
            await self._close(reason)
        else:
            self._begun.set_result(None)
            self._start(self._ahead, demand=False)

    def _start(self, blocks: Iterable[int], *, demand: bool) -> Sequence["asyncio.Future[None]"]:
        """Make sure each block is present or on its way; return what to wait for."""
        waits = []
        for block in blocks:
            if self._present >> block & 1:
                continue
            arrival = self._fetching.get(block)
            if arrival is None:
                arrival = asyncio.get_running_loop().create_future()
                self._fetching[block] = arrival
                self._tickets[block] = self._tools.slots.ask(demand=demand)
                self._tools.spawn(self._fetch_block(block, arrival))
            elif demand and block in self._tickets:
                self._tools.slots.promote(self._tickets[block])
            waits.append(arrival)
        return waits

    async def _fetch_block(self, block: int, arrival: "asyncio.Future[None]") -> None:
        ticket, slots = self._tickets[block], self._tools.slots
        length = self._tools.geometry.block_size(self.key.size, block)
        try:
            await slots.acquire(ticket)
            try:
                fetched = await self._fetch(block, length, self._algorithm)
            finally:
                slots.release(ticket)
        except asyncio.CancelledError:
            arrival.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            reason = self._reason(error)
            self._ended(block)
            fail(arrival, reason)
            # Other blocks of the shard fail the same way; the last one to do so ends the fill.
            if isinstance(reason, NoSpace | StaleObject) and not self._fetching:
                await self._close(reason)
        else:
            self._sums[block] = fetched.checksum
            self._present |= 1 << block
            self._ended(block)
            arrival.set_result(None)
            await self._after_block()

    def _ended(self, block: int) -> None:
        del self._fetching[block]
        del self._tickets[block]

    async def _after_block(self) -> None:
        present = self._present.bit_count()
        if present == self._blocks:
            try:
                await self._seal(self._sums, self._algorithm, self._whole)
            except asyncio.CancelledError:
                self.sealed.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
                await self._close(self._reason(error))
        elif worth_finishing(present, self._blocks):
            self._start(range(self._blocks), demand=False)
