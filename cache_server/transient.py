"""What no disk takes: ranges served from memory, inside a byte budget.

A full or broken disk costs speed, not reads. The blocks that a reader asks for are fetched into memfds
(one per block, shared by all who ask at the same time), handed out like any other file, and forgotten
as soon as newer ones need the room. The kernel frees a memfd when its last holder closes it: readers
hold theirs for one request at a time, so what they hold is bounded by the number of open handles.

A sequential reader is read ahead of, behind all demand: in half of the budget at most, counting all that
is on its way, so that many readers leave no room for it. A block ahead that still stands in the way of a
demand read is given up.
"""

import asyncio
import fcntl
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator

from cache_server.flight import Spawn, all_settled, fail, result_of
from cache_server.opened import FileExtent
from cache_server.origins.origin import Target, Want
from cache_server.origins.table import Mounted
from cache_server.readers import Readers
from cache_server.slots import FetchSlots, Ticket
from hotshard.core.blocks import Geometry
from hotshard.core.errors import Overloaded
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

RETRY_AFTER_S = 0.2
BLOCKS_PER_OPEN = 2  # what one reply may take of the budget
AHEAD_SHARE = 0.5  # of the budget: beyond it, nothing is fetched ahead
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


class _Block:
    """A block, on its way or held."""

    __slots__ = ("demand", "file", "given_up", "patience", "size", "ticket")

    def __init__(self, size: int, *, demand: bool) -> None:
        self.file: asyncio.Future[OpenFile] = asyncio.get_running_loop().create_future()
        self.size = size
        self.demand = demand
        """Whether a reader has asked for it; else it is ahead of one."""
        self.ticket: Ticket | None = None
        """Its place in the queue for the origin, once it stands there."""
        self.patience: asyncio.Timeout | None = None
        self.given_up = False

    def give_up(self) -> None:
        """Stop fetching it; nobody waits for it."""
        self.given_up = True
        if self.patience is not None:
            self.patience.reschedule(asyncio.get_running_loop().time())


_Key = tuple[str, str, int]  # uri, version, offset in the object


class Transient:
    """Blocks in memory. Use from the event loop only."""

    def __init__(
        self,
        budget_bytes: int,
        *,
        geometry: Geometry,
        slots: FetchSlots,
        spawn: Spawn,
        on_bytes: Callable[[str, str, int], None],
    ) -> None:
        """`on_bytes`: as that of FillTools."""
        self._on_bytes = on_bytes
        self._budget_bytes = budget_bytes
        self._geometry = geometry
        self._slots = slots
        self._spawn = spawn
        self._readers = Readers(geometry.block_bytes)
        self._held: OrderedDict[_Key, _Block] = OrderedDict()
        self._held_bytes = 0
        self._fetching: dict[tuple[_Key, bool], _Block] = {}  # by key and `forwarded`
        self._fetching_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Bytes held or being fetched."""
        return self._held_bytes + self._fetching_bytes

    @property
    def budget_bytes(self) -> int:
        """The limit of `used_bytes`."""
        return self._budget_bytes

    async def extents(
        self, mounted: Mounted, info: ObjectInfo, start: int, stop: int, *, forwarded: bool = False
    ) -> list[FileExtent]:
        """The blocks of [start, stop) of an object that are to be had now: from one to BLOCKS_PER_OPEN.

        Args:
            mounted: the origin of the object.
            info: the object.
            start: first byte.
            stop: past the last byte.
            forwarded: for another member of the cluster, which reads ahead itself.

        Raises:
            Overloaded: the budget is taken by fetches under way; ask again soon.
            HotshardError: what kept the first block from coming.
        """
        wants: list[Want] = []
        blocks: list[_Block] = []
        for want in self._wants(info, start, stop):
            try:
                block = self._demand(mounted, want, forwarded=forwarded)
            except Overloaded:
                if not blocks:
                    raise
                break
            wants.append(want)
            blocks.append(block)
            if len(blocks) == BLOCKS_PER_OPEN:
                break
        if not forwarded:
            self._read_ahead(mounted, info, start, wants[-1].offset + wants[-1].length)
        await all_settled(block.file for block in blocks)
        found: list[FileExtent] = []
        for want, block in zip(wants, blocks, strict=True):
            if found and (block.file.cancelled() or block.file.exception() is not None):
                break  # whoever reads on to it is told
            found.append(
                FileExtent(want.offset, want.length, await result_of(block.file), 0, sealed=False)
            )
        return found

    def _wants(self, info: ObjectInfo, start: int, stop: int) -> Iterator[Want]:
        block_bytes = self._geometry.block_bytes
        for offset in range(start - start % block_bytes, min(stop, info.size), block_bytes):
            yield Want(info, offset, min(block_bytes, info.size - offset))

    def _demand(self, mounted: Mounted, want: Want, *, forwarded: bool) -> _Block:
        key = _key(want)
        held = self._held.get(key)
        if held is not None:
            held.demand = True
            self._held.move_to_end(key)
            return held
        block = self._fetching.get((key, forwarded))
        if block is None:
            self._make_room(want.length, want.info.uri)
            return self._start(mounted, want, demand=True, forwarded=forwarded)
        if not block.demand:
            block.demand = True
            if block.ticket is not None:
                self._slots.promote(block.ticket)
        return block

    def _read_ahead(self, mounted: Mounted, info: ObjectInfo, start: int, stop: int) -> None:
        """Fetch what a sequential reader asks for next, within the shard: the next one may be kept."""
        shard_bytes = self._geometry.shard_bytes
        ahead = self._readers.ahead(info, start, stop)
        ahead = min(ahead, (start // shard_bytes + 1) * shard_bytes)
        if ahead <= stop:
            return
        unread = sum(block.size for block in self._held.values() if not block.demand)
        limit = self._budget_bytes * AHEAD_SHARE - unread
        for want in self._wants(info, stop, ahead):
            key = _key(want)
            if key in self._held or (key, False) in self._fetching:
                continue
            if self._fetching_bytes + want.length > limit:
                return
            self._drop_held(want.length)
            self._start(mounted, want, demand=False, forwarded=False)

    def _start(self, mounted: Mounted, want: Want, *, demand: bool, forwarded: bool) -> _Block:
        block = _Block(want.length, demand=demand)
        self._fetching[_key(want), forwarded] = block
        self._fetching_bytes += block.size
        self._spawn(self._fetch(mounted, want, block, forwarded=forwarded))
        return block

    async def _fetch(self, mounted: Mounted, want: Want, block: _Block, *, forwarded: bool) -> None:
        if block.given_up:
            return
        try:
            async with asyncio.timeout(None) as block.patience:
                file = await self._fetch_into_memory(mounted, want, block, forwarded=forwarded)
        except asyncio.CancelledError:
            self._forget(want, block, forwarded=forwarded)
            block.file.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            self._forget(want, block, forwarded=forwarded)
            fail(block.file, error)
        else:
            counted = self._forget(want, block, forwarded=forwarded)
            block.file.set_result(file)
            key = _key(want)
            if counted and key not in self._held:
                self._held[key] = block
                self._held_bytes += block.size

    def _forget(self, want: Want, block: _Block, *, forwarded: bool) -> bool:
        """It is on its way no longer; whether it counted until now, not given up before."""
        if block.given_up:
            return False
        del self._fetching[_key(want), forwarded]
        self._fetching_bytes -= block.size
        return True

    async def _fetch_into_memory(
        self, mounted: Mounted, want: Want, block: _Block, *, forwarded: bool
    ) -> OpenFile:
        writable = OpenFile(os.memfd_create("hotshard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        target = Target(writable.fd, 0)
        peers, source = mounted.peers, "peer"
        if peers is None or not await peers.fetch(
            want, target, forwarded=forwarded, demand=block.demand
        ):
            source = "origin"
            block.ticket = self._slots.ask(demand=block.demand)
            await self._slots.acquire(block.ticket)
            try:
                await mounted.for_asker(forwarded=forwarded).fetch(want, target)
            finally:
                self._slots.release(block.ticket)
        self._on_bytes(want.info.uri, source, want.length)
        # Readers get a descriptor that cannot write: it goes to other processes, for which the file of a
        # memfd is anybody's to open anew through /proc. The seals hold for those openings, too.
        fcntl.fcntl(writable.fd, fcntl.F_ADD_SEALS, _SEALS)
        return OpenFile(os.open(f"/proc/self/fd/{writable.fd}", os.O_RDONLY | os.O_CLOEXEC))

    def _make_room(self, length: int, uri: str) -> None:
        self._drop_held(length)
        for way, block in reversed(list(self._fetching.items())):
            if self.used_bytes + length <= self._budget_bytes:
                return
            if not block.demand:
                del self._fetching[way]
                self._fetching_bytes -= block.size
                block.give_up()
        if self.used_bytes + length > self._budget_bytes and self._fetching_bytes:
            raise Overloaded(
                f"{uri}: no disk space, and the memory for serving without disk is in use",
                uri=uri,
                retry_after_s=RETRY_AFTER_S,
            )

    def _drop_held(self, length: int) -> None:
        """Make room, if what is held makes any; the least recently used goes first."""
        while self._held and self.used_bytes + length > self._budget_bytes:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.size


def _key(want: Want) -> _Key:
    return want.info.uri, want.info.version, want.offset
