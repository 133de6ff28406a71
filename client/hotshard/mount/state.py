"""What outlives a reader: one memory file (memfd) that the keeper holds and each reader maps.

    page 0            header: format, heartbeat, counters, the INIT reply
    page 1            which request slots are in use, and for which descriptor
    4 MiB ...         request slots: the bytes of every request that is read and not answered
    8 MiB ...         open handles (handles.HandleTable)
    16 MiB ...        segments: the listings (listing.Listing), so the inode table

There is no log and no replay: the readers work on these bytes in place. One reader at a time has the
`Claim` on the state. The file is sparse: what was never touched takes no memory.
"""

import fcntl
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

from hotshard.mount import abi, listing
from hotshard.mount.listing import Listing

FORMAT = 1
_MAGIC = 0x544D5348
_HEADER = Struct("<IIQIIII")  # magic format heartbeat_ns restarts resends init_bytes flags
_HEARTBEAT = Struct("<Q")
HEARTBEAT_AT = 8
_COUNT = Struct("<I")
_RESTARTS_AT = 16
_RESENDS_AT = 20
_INIT_BYTES_AT = 24
_FLAGS_AT = 28
_ENDED = 1
_INIT_AT = 64

SLOTS = 480
_SLOT_DEVICE_AT = 4096
_SLOTS_AT = 4 << 20
_HANDLES_AT = 8 << 20
HANDLES = 200_000
_SEGMENTS_AT = 16 << 20
_SEGMENT = Struct("<II8xQ")  # magic, padding, bytes
_SEGMENT_MAGIC = 0x4D474553
_SEGMENT_BYTES = 4 << 20
_BLOCK = Struct("<IIQ")  # magic flags length: how a listing begins
_ALIGN = 8


class Incompatible(Exception):
    """The state was made by a version that lays it out differently; only a new mount helps."""


class Claim:
    """The right to work on a state. One process at a time has it, and keeps it until it is gone.

    Who gets it after another therefore finds no thread of the other at work: the kernel gives up a
    process's locks when its last thread has left.
    """

    def __init__(self, state_fd: int) -> None:
        # Locks belong to an open file description, and every copy of `state_fd` is the same one.
        self._fd = os.open(f"/proc/self/fd/{state_fd}", os.O_RDWR | os.O_CLOEXEC)

    def take(self) -> bool:
        """Take it; False: another process has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class State:
    """The first, fixed part of the file: everything but the listings."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.map = mmap.mmap(fd, _SEGMENTS_AT)
        magic, version = _HEADER.unpack_from(self.map)[:2]
        if magic != _MAGIC or version != FORMAT:
            self.map.close()
            raise Incompatible(
                f"the mount's state has format {version}, this program knows {FORMAT}"
            )

    @classmethod
    def create(cls) -> "State":
        """A new, empty state."""
        fd = os.memfd_create("hotshard-mount", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SEGMENTS_AT)
        os.pwrite(fd, _HEADER.pack(_MAGIC, FORMAT, 0, 0, 0, 0, 0), 0)
        return cls(fd)

    @property
    def handles_at(self) -> int:
        """Where the handle table begins in `map`."""
        return _HANDLES_AT

    @property
    def heartbeat_ns(self) -> int:
        """When the reader last said that it is well, by the monotonic clock; 0: not yet."""
        beat: int = _HEARTBEAT.unpack_from(self.map, HEARTBEAT_AT)[0]
        return beat

    def beat(self, now_ns: int) -> None:
        """Say that the reader is well; 0: that there is a new one, which has not said so yet."""
        _HEARTBEAT.pack_into(self.map, HEARTBEAT_AT, now_ns)

    @property
    def restarts(self) -> int:
        """Readers started after the first."""
        return self._count(_RESTARTS_AT)

    def add_restart(self) -> None:
        """Count one."""
        _COUNT.pack_into(self.map, _RESTARTS_AT, self.restarts + 1)

    @property
    def resends(self) -> int:
        """Requests that a later reader carried out again."""
        return self._count(_RESENDS_AT)

    def add_resends(self, count: int) -> None:
        """Count them."""
        _COUNT.pack_into(self.map, _RESENDS_AT, self.resends + count)

    @property
    def ended(self) -> bool:
        """Whether a reader found the mount gone."""
        return bool(self._count(_FLAGS_AT) & _ENDED)

    def end(self) -> None:
        """The mount is gone: nobody needs to serve it any more."""
        _COUNT.pack_into(self.map, _FLAGS_AT, _ENDED)

    @property
    def init_reply(self) -> bytes:
        """The payload of the INIT reply; empty: the kernel has not asked yet."""
        return self.map[_INIT_AT : _INIT_AT + self._count(_INIT_BYTES_AT)]

    def set_init_reply(self, payload: bytes) -> None:
        """Keep it for later readers."""
        self.map[_INIT_AT : _INIT_AT + len(payload)] = payload
        _COUNT.pack_into(self.map, _INIT_BYTES_AT, len(payload))

    def _count(self, at: int) -> int:
        count: int = _COUNT.unpack_from(self.map, at)[0]
        return count


class RequestSlots:
    """Buffers for requests, in shared memory: what a killed reader had not answered is still there.

    A slot belongs to a descriptor from `acquire` to `release`. Its first word, the length of the request
    in it, is zero unless a request waits there for its answer.
    """

    def __init__(self, state: State) -> None:
        self._map = state.map
        self._view = memoryview(state.map)
        self._free = [i for i in range(SLOTS) if not self._device(i)]

    def acquire(self, device: int) -> int | None:
        """A free slot for a descriptor; None: all are in use."""
        if not self._free:
            return None
        slot = self._free.pop()
        self.clear(slot)
        _COUNT.pack_into(self._map, _SLOT_DEVICE_AT + 4 * slot, device + 1)
        return slot

    def view(self, slot: int) -> memoryview:
        """The buffer to read a request into."""
        at = _SLOTS_AT + slot * abi.MIN_READ_BUFFER
        return self._view[at : at + abi.MIN_READ_BUFFER]

    def clear(self, slot: int) -> None:
        """The request in it is answered."""
        _COUNT.pack_into(self._map, _SLOTS_AT + slot * abi.MIN_READ_BUFFER, 0)

    def release(self, slot: int) -> None:
        """Give it back, answered."""
        self.clear(slot)
        _COUNT.pack_into(self._map, _SLOT_DEVICE_AT + 4 * slot, 0)
        self._free.append(slot)

    def release_all(self) -> None:
        """Forget what a dead process had read: the kernel sends it again."""
        for slot in range(SLOTS):
            if self._device(slot):
                self.release(slot)

    def left_over(self) -> list[tuple[int, int, bytes]]:
        """(slot, device, request) of every request that nobody answered; frees the slots without one."""
        found = []
        for slot in range(SLOTS):
            device = self._device(slot)
            if not device:
                continue
            raw = self.view(slot)
            length = _COUNT.unpack_from(raw)[0]
            if abi.IN_HEADER.size <= length <= len(raw):
                found.append((slot, device - 1, bytes(raw[:length])))
            else:
                self.release(slot)
        return found

    def _device(self, slot: int) -> int:
        device: int = _COUNT.unpack_from(self._map, _SLOT_DEVICE_AT + 4 * slot)[0]
        return device


@dataclass(slots=True, eq=False)
class _Segment:
    map: mmap.mmap
    at: int
    used: int = mmap.PAGESIZE
    live: int = 0

    @property
    def room(self) -> int:
        return len(self.map) - self.used


class Arena:
    """Space for listings: segments of the file, filled front to back, emptied when nothing lives there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._segments: dict[int, _Segment] = {}  # id of its map -> segment
        self._active: _Segment | None = None
        self._idle: list[_Segment] = []
        self._end = _SEGMENTS_AT

    def store(self, packed: bytes) -> Listing:
        """Copy a packed listing in."""
        length = len(packed) + -len(packed) % _ALIGN
        segment = self._with_room(length)
        at = segment.used
        # Reserve first, show last: a torn copy is skipped by `restore` as free space.
        _BLOCK.pack_into(segment.map, at, listing.FREE, 0, length)
        body = at + _BLOCK.size
        segment.map[body : at + len(packed)] = packed[_BLOCK.size :]
        _BLOCK.pack_into(segment.map, at, listing.MAGIC, 0, length)
        segment.used = at + length
        segment.live += 1
        return Listing(segment.map, at)

    def release(self, one: Listing) -> None:
        """Free the space of a listing."""
        segment = self._segments[id(one.buffer)]
        _BLOCK.pack_into(segment.map, one.base, listing.FREE, 0, one.length)
        segment.live -= 1
        if not segment.live and segment is not self._active:
            self._empty(segment)

    def restore(self) -> list[Listing]:
        """The listings another process stored, oldest first."""
        found: list[Listing] = []
        size = os.fstat(self._fd).st_size
        while self._end < size:
            head = os.pread(self._fd, _SEGMENT.size, self._end)
            magic, _, length = _SEGMENT.unpack(head)
            if magic != _SEGMENT_MAGIC:
                break  # its maker died before it was ready; the next one goes here
            segment = self._map_segment(length)
            for at, block in self._blocks(segment):
                segment.used = at + block
                if _COUNT.unpack_from(segment.map, at)[0] == listing.MAGIC:
                    segment.live += 1
                    found.append(Listing(segment.map, at))
            if not segment.live:
                self._empty(segment)
        return sorted(found, key=lambda one: one.serial)

    def _blocks(self, segment: _Segment) -> Iterator[tuple[int, int]]:
        at = segment.used
        while at + _BLOCK.size <= len(segment.map):
            magic, _, length = _BLOCK.unpack_from(segment.map, at)
            if magic not in {listing.MAGIC, listing.FREE}:
                return
            yield at, length
            at += length

    def _with_room(self, length: int) -> _Segment:
        if self._active is not None and self._active.room >= length:
            return self._active
        before, self._active = self._active, None
        if before is not None and not before.live:
            self._empty(before)
        for segment in self._idle:
            if segment.room >= length:
                self._idle.remove(segment)
                self._active = segment
                return segment
        need = mmap.PAGESIZE + length
        self._active = self._new_segment(max(_SEGMENT_BYTES, need + -need % mmap.PAGESIZE))
        return self._active

    def _new_segment(self, length: int) -> _Segment:
        os.ftruncate(self._fd, self._end + length)
        os.pwrite(self._fd, _SEGMENT.pack(_SEGMENT_MAGIC, 0, length), self._end)
        return self._map_segment(length)

    def _map_segment(self, length: int) -> _Segment:
        segment = _Segment(mmap.mmap(self._fd, length, offset=self._end), self._end)
        self._segments[id(segment.map)] = segment
        self._end += length
        return segment

    def _empty(self, segment: _Segment) -> None:
        """Give the memory back to the system; the first page says how long the segment is."""
        segment.map.madvise(mmap.MADV_REMOVE, mmap.PAGESIZE, len(segment.map) - mmap.PAGESIZE)
        segment.used = mmap.PAGESIZE
        self._idle.append(segment)
