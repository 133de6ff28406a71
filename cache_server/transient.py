"""What no disk takes: ranges served from memory, inside a byte budget.

A full or broken disk costs speed, not reads. The blocks that a reader asks for are fetched into memfds
(one per block, shared by all who ask at the same time), handed out like any other file, and forgotten
as soon as newer ones need the room. The kernel frees a memfd when its last holder closes it: readers
hold theirs for one request at a time, so what they hold is bounded by the number of open handles.
"""

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cache_server.flight import Flights, Spawn
from cache_server.opened import FileExtent
from cache_server.origins.origin import Target, Want
from cache_server.origins.table import Mounted
from cache_server.slots import FetchSlots
from hotshard.core.blocks import Geometry
from hotshard.core.errors import Overloaded
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

RETRY_AFTER_S = 0.2
BLOCKS_PER_OPEN = 2  # what one reply may take of the budget


@dataclass(frozen=True, slots=True)
class _Block:
    file: OpenFile
    size: int


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
        self._held: OrderedDict[_Key, _Block] = OrderedDict()
        self._held_bytes = 0
        self._fetching_bytes = 0
        self._flights: Flights[tuple[_Key, bool], OpenFile] = Flights(spawn)

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
        """The blocks of [start, stop) of an object, BLOCKS_PER_OPEN of them at most.

        Raises:
            Overloaded: as `block`.
        """
        found: list[FileExtent] = []
        while start < stop and len(found) < BLOCKS_PER_OPEN:
            file, start, length = await self.block(mounted, info, start, forwarded=forwarded)
            found.append(FileExtent(start, length, file, 0, sealed=False))
            start += length
        return found

    async def block(
        self, mounted: Mounted, info: ObjectInfo, offset: int, *, forwarded: bool = False
    ) -> tuple[OpenFile, int, int]:
        """The block of the object that holds `offset`; `forwarded`: for another member of the cluster.

        Returns:
            The file, the offset in the object of its first byte, and its length in bytes.

        Raises:
            Overloaded: the budget is taken by fetches under way; ask again soon.
        """
        start = offset - offset % self._geometry.block_bytes
        length = min(self._geometry.block_bytes, info.size - start)
        key = (info.uri, info.version, start)
        want = Want(info, start, length)
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held.file, start, length
        file = await self._flights.join(
            (key, forwarded), lambda: self._fetch(mounted, want, forwarded=forwarded)
        )
        return file, start, length

    async def _fetch(self, mounted: Mounted, want: Want, *, forwarded: bool) -> OpenFile:
        length = want.length
        self._make_room(length, want.info.uri)
        self._fetching_bytes += length
        try:
            file = await self._fetch_into_memory(mounted, want, forwarded=forwarded)
        finally:
            self._fetching_bytes -= length
        self._held[want.info.uri, want.info.version, want.offset] = _Block(file, length)
        self._held_bytes += length
        return file

    async def _fetch_into_memory(
        self, mounted: Mounted, want: Want, *, forwarded: bool
    ) -> OpenFile:
        writable = OpenFile(os.memfd_create("hotshard", os.MFD_CLOEXEC))
        target = Target(writable.fd, 0)
        peers, source = mounted.peers, "peer"
        if peers is None or not await peers.fetch(want, target, forwarded=forwarded, demand=True):
            source = "origin"
            ticket = self._slots.ask(demand=True)
            await self._slots.acquire(ticket)
            try:
                await mounted.for_asker(forwarded=forwarded).fetch(want, target)
            finally:
                self._slots.release(ticket)
        self._on_bytes(want.info.uri, source, want.length)
        # Readers get a descriptor that cannot write: it goes to other processes.
        return OpenFile(os.open(f"/proc/self/fd/{writable.fd}", os.O_RDONLY | os.O_CLOEXEC))

    def _make_room(self, length: int, uri: str) -> None:
        while self._held and self.used_bytes + length > self._budget_bytes:
            _, dropped = self._held.popitem(last=False)
            self._held_bytes -= dropped.size
        if self.used_bytes + length > self._budget_bytes and self._fetching_bytes:
            raise Overloaded(
                f"{uri}: no disk space, and the memory for serving without disk is in use",
                uri=uri,
                retry_after_s=RETRY_AFTER_S,
            )
