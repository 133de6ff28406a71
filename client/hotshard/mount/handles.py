"""Open files and directories, as records in a shared buffer. Pure.

A handle is named by the unique number of the request that opened it. A request that is carried out twice,
because the process died before it could answer, therefore makes one handle. `node` is the inode, of a
directory handle the serial of the listing it reads.

The kernel forbids cached and passthrough opens of one inode at one time, and two backing ids: `mode_of`
says what the open handles of an inode have settled, and the next open follows them.

A backing id can be kept for an inode that nobody has open, so that the next open need not make one: it is
recorded like a handle, with a number that no request has.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from hotshard.mount import abi

if TYPE_CHECKING:
    from hotshard.mount.listing import Buffer

_RECORD = Struct("<QQIi")  # fh node mode backing_id
_U64 = Struct("<Q")
RECORD_BYTES = _RECORD.size
_KEPT = 1 << 62  # | backing id: requests are counted up from 0, and never get there
HEAD_BYTES = _U64.size  # how many records were ever in use, before the records


class Mode(IntEnum):
    """How the reads of a handle go."""

    PASSTHROUGH = 1
    CACHED = 2
    DIRECTORY = 3


_MODES = {mode.value: mode for mode in Mode}  # quicker than Mode(value)


class TooManyOpen(Exception):
    """The table is full."""


class Handle(NamedTuple):
    """One open file or directory."""

    fh: int
    node: int
    mode: Mode
    backing_id: int = 0


@dataclass(slots=True)
class _Opens:
    mode: Mode
    backing_id: int
    count: int


class HandleTable:
    """The handles of a mount. Not thread-safe: its owner has a lock."""

    def __init__(self, buffer: "Buffer", base: int, capacity: int) -> None:
        """Takes over whatever records the buffer holds; one of zeros is empty."""
        self._buffer = buffer
        self._base = base
        self._capacity = capacity
        self._used: int = _U64.unpack_from(buffer, base)[0]
        self._index: dict[int, int] = {}  # fh -> record
        self._opens: dict[int, _Opens] = {}
        self._free: list[int] = []
        self._kept: dict[int, int] = {}  # node -> fh
        for index in range(self._used):
            handle = self._read(index)
            if handle is None:
                self._free.append(index)
                continue
            self._index[handle.fh] = index
            if handle.mode is not Mode.DIRECTORY:
                self._count(handle)
            if handle.fh & _KEPT:
                self._kept[handle.node] = handle.fh

    def __len__(self) -> int:
        return len(self._index) - len(self._kept)

    def __iter__(self) -> Iterator[Handle]:
        return (h for i in list(self._index.values()) if (h := self._read(i)) is not None)

    def open(self, unique: int, node: int, mode: Mode, backing_id: int = 0) -> Handle:
        """Record a handle; for a request seen before, the one it got then.

        Raises:
            TooManyOpen: no record is free.
        """
        fh = unique & ~abi.UNIQUE_RESEND
        if fh in self._index:
            known = self.get(fh)
            assert known is not None, "an indexed record is in use"
            return known
        handle = Handle(fh, node, mode, backing_id)
        index = self._take()
        at = self._at(index)
        # The fh last: a record without it is a free one.
        _RECORD.pack_into(self._buffer, at, 0, node, mode, backing_id)
        _U64.pack_into(self._buffer, at, fh)
        self._index[fh] = index
        if mode is not Mode.DIRECTORY:
            self._count(handle)
        return handle

    def close(self, fh: int) -> Handle | None:
        """Drop a handle; None: no such handle (closed before)."""
        index = self._index.pop(fh, None)
        if index is None:
            return None
        handle = self._read(index)
        assert handle is not None, "an indexed record is in use"
        _U64.pack_into(self._buffer, self._at(index), 0)
        self._free.append(index)
        if handle.mode is not Mode.DIRECTORY:
            opens = self._opens[handle.node]
            opens.count -= 1
            if not opens.count:
                del self._opens[handle.node]
        return handle

    def keep(self, node: int, backing_id: int) -> None:
        """Settle passthrough for an inode, whether or not it is open.

        Raises:
            TooManyOpen: no record is free.
        """
        fh = _KEPT | backing_id
        self.open(fh, node, Mode.PASSTHROUGH, backing_id)
        self._kept[node] = fh

    def let_go(self, node: int) -> Handle | None:
        """Undo `keep`; None: nothing was kept."""
        fh = self._kept.pop(node, None)
        return None if fh is None else self.close(fh)

    def kept(self) -> list[int]:
        """The inodes for which a backing id is kept."""
        return list(self._kept)

    def get(self, fh: int) -> Handle | None:
        """A handle by its number."""
        index = self._index.get(fh)
        return None if index is None else self._read(index)

    def mode_of(self, node: int) -> tuple[Mode, int] | None:
        """Mode and backing id that every further open of an inode must have; None: free to choose."""
        opens = self._opens.get(node)
        return None if opens is None else (opens.mode, opens.backing_id)

    def _count(self, handle: Handle) -> None:
        opens = self._opens.get(handle.node)
        if opens is None:
            self._opens[handle.node] = _Opens(handle.mode, handle.backing_id, 1)
        else:
            opens.count += 1

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        if self._used >= self._capacity:
            raise TooManyOpen(f"{len(self._index)} files are open")
        self._used += 1
        _U64.pack_into(self._buffer, self._base, self._used)
        return self._used - 1

    def _at(self, index: int) -> int:
        return self._base + HEAD_BYTES + index * RECORD_BYTES

    def _read(self, index: int) -> Handle | None:
        fh, node, mode, backing_id = _RECORD.unpack_from(self._buffer, self._at(index))
        return Handle(fh, node, _MODES[mode], backing_id) if fh else None
