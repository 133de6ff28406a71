"""A fill of a shard with several blocks: each is fetched once, whoever asks for it and however often.

Life: created by the first reader -> `store.begin` reserves space -> blocks are fetched as they are asked
for, or as read-ahead -> the last one to arrive seals the shard. Between requests it just sits there,
partial. A failed block fails those who wait for it, and is fetched anew when asked for again.
"""

import asyncio
from collections.abc import Iterable, Sequence

from cache_server.block_flight import BlockFlight
from cache_server.core.readahead import worth_finishing
from cache_server.fill import Fill, FillTools
from cache_server.flight import fail, result_of
from cache_server.origins.table import Mounted
from cache_server.store.options import NoSpace
from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


class BlockFill(Fill):
    """See the module."""

    def __init__(self, key: ShardKey, info: ObjectInfo, mounted: Mounted, tools: FillTools) -> None:
        super().__init__(key, info, mounted, tools)
        self._blocks = tools.geometry.block_count(key.size)
        self._present = 0  # bit i: block i is in the file
        self._sums = [0] * self._blocks
        self._algorithm = Algorithm.XXH3_64
        self._whole: Checksum | None = None
        self._fetching: dict[int, BlockFlight] = {}
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

    @property
    def present_blocks(self) -> int:
        """Bit i: block i has arrived."""
        return self._present

    async def want(
        self, start: int, stop: int, *, demand: bool = True, forwarded: bool = False
    ) -> None:
        """Wait until [start, stop) of the shard is in the file, or the shard is sealed."""
        await result_of(self._begun)
        if self.closed:
            await result_of(self.sealed)
            return
        blocks = self._tools.geometry.blocks(start, stop)
        for arrival in self._start(blocks, demand=demand, forwarded=forwarded):
            await result_of(arrival)

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
                self._whole = await self._mounted.origin.whole_checksum(self._info)
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

    def sums(self, start: int, stop: int) -> Sums | None:
        """The checksums of the blocks of [start, stop), if all are present and it is whole blocks."""
        geometry = self._tools.geometry
        blocks = geometry.blocks(start, stop)
        if start % geometry.block_bytes or not all(self._present >> b & 1 for b in blocks):
            return None
        return Sums(self._algorithm, geometry.block_bytes, [self._sums[block] for block in blocks])

    def _start(
        self, blocks: Iterable[int], *, demand: bool, forwarded: bool = False
    ) -> Sequence["asyncio.Future[None]"]:
        """Make sure each block is present or on its way; return what to wait for."""
        waits = []
        for block in blocks:
            if self._present >> block & 1:
                continue
            flight = self._fetching.get(block)
            if flight is None:
                flight = BlockFlight(demand=demand, forwarded=forwarded)
                flight.ours = not forwarded
                self._fetching[block] = flight
                self._tools.spawn(self._fetch_block(block, flight))
            else:
                self._join(flight, demand=demand, forwarded=forwarded)
            waits.append(flight.arrival)
        return waits

    async def _fetch_block(self, block: int, flight: BlockFlight) -> None:
        arrival = flight.arrival
        try:
            fetched = await self._fetch(block, self._algorithm, flight)
        except asyncio.CancelledError:
            del self._fetching[block]
            arrival.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            reason = self._reason(error)
            del self._fetching[block]
            fail(arrival, reason)
            # Other blocks of the shard fail the same way; the last one to do so ends the fill.
            if isinstance(reason, NoSpace | StaleObject) and not self._fetching:
                await self._close(reason)
        else:
            self._sums[block] = fetched.checksum
            self._present |= 1 << block
            del self._fetching[block]
            arrival.set_result(None)
            await self._after_block()

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
