"""The fills of this node: at most one for each shard, and not too many that nobody comes back to."""

import asyncio
from collections.abc import Iterator
from functools import partial

from cache_server.block_fill import BlockFill
from cache_server.fill import Fill, FillTools
from cache_server.opened import ShardState
from cache_server.origins.table import Mounted
from cache_server.recent import Recent
from cache_server.store.options import ShardReport
from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums
from cache_server.whole_fill import Arrived, WholeFill
from hotshard.core.blocks import runs
from hotshard.core.objects import ObjectInfo

SUMS_SHARDS = 1024  # shards whose checksums members have asked for, and may ask for again
PARTIAL_SHARE = 4  # idle partial shards may hold 1/4 of the capacity


class Fills:
    """The fills under way, by shard. Use from the event loop only."""

    def __init__(self, tools: FillTools) -> None:
        self._tools = tools
        self._fills: dict[bytes, Fill] = {}
        self._bytes = 0
        self._sums: Recent[bytes, Sums] = Recent(SUMS_SHARDS)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._fills)

    def clock(self) -> float:
        """The time by which fills say when they began, in seconds."""
        return asyncio.get_running_loop().time()

    def __iter__(self) -> Iterator[Fill]:
        """All of them, as they are now."""
        return iter(list(self._fills.values()))

    def get(self, digest: bytes) -> Fill | None:
        """The fill of a shard, if it takes requests."""
        fill = self._fills.get(digest)
        return None if fill is None or fill.closed else fill

    def start(
        self,
        mounted: Mounted,
        info: ObjectInfo,
        key: ShardKey,
        *,
        demand: bool,
        arrived: Arrived | None = None,
    ) -> Fill:
        """Begin to fill a shard that has no fill; `arrived`: all of it is there, and to be sealed."""
        fill: Fill
        if self._tools.geometry.block_count(key.size) > 1:
            fill = BlockFill(key, info, mounted, self._tools)
        else:
            fill = WholeFill(key, info, mounted, self._tools, demand=demand, arrived=arrived)
        self._fills[key.digest] = fill
        self._bytes += key.size
        fill.sealed.add_done_callback(partial(self._ended, fill))
        self._trim_idle()
        return fill

    async def drop_idle(self) -> bool:
        """Give up all idle partial shards; whether there was one."""
        idle = [fill for fill in self if fill.idle and not fill.closed]
        for fill in idle:
            await fill.drop()
        return bool(idle)

    async def sums(self, key: ShardKey, start: int, stop: int) -> Sums | None:
        """The checksums of [start, stop) of a shard, filling or sealed, if it is made of whole blocks."""
        known, found = self.sums_now(key, start, stop)
        if known:
            return found
        sums = await self._tools.store.sums(key.digest)
        if sums is None:
            return None
        self._sums.put(key.digest, sums)
        return self._sums_of(sums, start, stop)

    def sums_now(self, key: ShardKey, start: int, stop: int) -> tuple[bool, Sums | None]:
        """Whether the answer of `sums` is known without a look at the disk, and the answer."""
        block_bytes = self._tools.geometry.block_bytes
        if start % block_bytes or (stop % block_bytes and stop != key.size):
            return True, None
        fill = self.get(key.digest)
        if fill is not None:
            return True, fill.sums(start, stop)
        sums = self._sums.get(key.digest)
        return sums is not None, sums and self._sums_of(sums, start, stop)

    def _sums_of(self, sums: Sums, start: int, stop: int) -> Sums:
        blocks = self._tools.geometry.blocks(start, stop)
        return Sums(sums.algorithm, sums.block_bytes, sums.values[blocks.start : blocks.stop])

    def state(self, key: ShardKey) -> ShardState:
        """Where a shard stands."""
        report: ShardReport | None = self._tools.store.describe(key.digest)
        fill = self.get(key.digest)
        blocks = self._tools.geometry.block_count(key.size)
        if report is not None:
            return ShardState(
                key, "sealed", key.size, report.path, report.pinned, report.verified, blocks
            )
        if fill is not None:
            return ShardState(
                key,
                "partial",
                fill.present_bytes,
                fill.disk_path,
                pinned=False,
                verified=False,
                blocks=blocks,
                present=runs(fill.present_blocks),
            )
        return ShardState(key, "absent", 0, "", pinned=False, verified=False, blocks=blocks)

    def _ended(self, fill: Fill, _: object) -> None:
        self._bytes -= fill.key.size
        if self._fills.get(fill.key.digest) is fill:
            del self._fills[fill.key.digest]

    def _trim_idle(self) -> None:
        """Keep partial shards, which nobody may come back to, from crowding out sealed ones."""
        excess = self._bytes - self._tools.store.capacity_bytes // PARTIAL_SHARE
        for fill in self if excess > 0 else ():
            if excess > 0 and fill.idle and not fill.closed:
                excess -= fill.key.size
                self._tools.spawn(fill.drop())
