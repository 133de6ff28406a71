"""File objects over cached objects.

A `CachedFile` is a raw, read-only file: position, `readinto`, `seek` as `io.FileIO` has them, and reads at
an offset that need no position and may come from several threads at once. It is pinned to one version.
Bytes that are at hand are read from the cached file itself; others are asked for first.

When the whole object lies in one sealed file, `readinto_at` is a method call around one preadv.
"""

import io
import mmap
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

from hotshard.calls import Piece
from hotshard.core.errors import InvalidRequest
from hotshard.core.objects import ObjectInfo
from hotshard.handles import Handle
from hotshard.openfile import OpenFile
from hotshard.ops import Operations
from hotshard.steps import Operation

if TYPE_CHECKING:
    from typing_extensions import Buffer

BUFFER_BYTES = 256 << 10  # one call for this much; bigger reads pass the buffer by
BUFFER_BYTES_REMOTE = 1 << 20  # over gRPC each call costs a round trip

_preadv = os.preadv
_pread = os.pread
T = TypeVar("T")


class Run(Protocol):
    """Carries out an operation, blocking."""

    def __call__(self, operation: Operation[T], /) -> T:
        """Its result."""


class CachedFile(io.RawIOBase):
    """One version of one object as a raw file."""

    def __init__(self, run: Run, ops: Operations, handle: Handle) -> None:
        super().__init__()
        self._run = run
        self._ops = ops
        self._handle = handle
        self._position = 0
        self._straight: OpenFile | None = None
        self._learn()

    # -- what it is -----------------------------------------------------------------------------

    @property
    def info(self) -> ObjectInfo:
        """The object this file is pinned to."""
        return self._handle.info

    @property
    def local(self) -> bool:
        """Whether it reads cached files, not the network."""
        return self._ops.passes_files

    @property
    def size(self) -> int:
        """Bytes of the object."""
        return self._handle.size

    @property
    def version(self) -> str:
        """The version this file is pinned to."""
        return self._handle.info.version

    @property
    def name(self) -> str:
        """The uri."""
        return self._handle.info.uri

    @property
    def mode(self) -> str:
        """As of files opened by the builtin: "rb"."""
        return "rb"

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        self._check_open()
        return True

    def seekable(self) -> bool:
        """Whether it has a position that can be set: yes."""
        self._check_open()
        return True

    # -- reading at an offset -------------------------------------------------------------------

    def readinto_at(self, buffer: "Buffer", offset: int) -> int:
        """Fill a writable buffer from `offset`; returns how many bytes there were. No position moves."""
        straight = self._straight  # a local variable, so that close() elsewhere does not close it
        if straight is not None and offset >= 0:  # to preadv, -1 means the file's own position
            try:
                return _preadv(straight.fd, (buffer,), offset)
            except BufferError:  # not writable; below it gets the error that io has for this
                pass
        self._check_open()
        if offset < 0:
            raise InvalidRequest(f"{self.name}: offset {offset} is negative", uri=self.name)
        count = self._run(self._ops.read_at_into(self._handle, offset, writable(buffer)))
        self._learn()
        return count

    def read_at(self, offset: int, length: int | None = None) -> bytes:
        """Bytes from `offset`; fewer than `length` only at the end. No position moves."""
        self._check_open()
        if offset < 0 or (length is not None and length < 0):
            raise InvalidRequest(f"{self.name}: negative offset or length", uri=self.name)
        straight = self._straight
        if straight is not None:
            left = max(0, self._handle.size - offset)
            count = left if length is None or length > left else length
            data: bytes = _pread(straight.fd, count, offset)
            if len(data) == count:
                return data
        data = self._run(self._ops.read_at(self._handle, offset, length))
        self._learn()
        return data

    # -- reading at the position ----------------------------------------------------------------

    def readinto(self, buffer: "Buffer") -> int:
        """Fill a writable buffer; returns 0 at the end."""
        count = self.readinto_at(buffer, self._position)
        self._position += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, or all that is left."""
        data = self.read_at(self._position, None if size is None or size < 0 else size)
        self._position += len(data)
        return data

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; it may lie beyond the end."""
        self._check_open()
        self._position = seeked(self.info, self._position, offset, whence)
        return self._position

    def tell(self) -> int:
        """The position."""
        self._check_open()
        return self._position

    def close(self) -> None:
        """Let go of the cached file; idempotent."""
        self._straight = None
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def _learn(self) -> None:
        """Take the short way from now on, if there is one."""
        if self._straight is None and measured(self._handle) and not self.closed:
            self._straight = self._handle.file


def seeked(info: ObjectInfo, position: int, offset: int, whence: int) -> int:
    """Where a seek ends."""
    if whence == io.SEEK_CUR:
        offset += position
    elif whence == io.SEEK_END:
        offset += info.size
    elif whence != io.SEEK_SET:
        raise ValueError(f"invalid whence ({whence}, should be 0, 1 or 2)")
    if offset < 0:
        raise InvalidRequest(f"{info.uri}: negative seek position {offset}", uri=info.uri)
    return offset


def opened(raw: CachedFile, buffering: int) -> io.BufferedReader | CachedFile:
    """What `open()` returns for a raw file."""
    if buffering == 0:
        return raw
    default = BUFFER_BYTES if raw.local else BUFFER_BYTES_REMOTE
    return io.BufferedReader(raw, buffering if buffering > 1 else default)


def measured(handle: Handle) -> bool:
    """Whether the object can be read straight from one file, looking at the file's size if need be."""
    file = handle.file
    if file is not None and not handle.straight:
        handle.measured(file, os.fstat(file.fd).st_size)
    return handle.straight


def writable(buffer: "Buffer") -> memoryview:
    """The bytes of a buffer, to be written to."""
    view = memoryview(buffer)
    if view.readonly:
        raise TypeError(f"a writable buffer is needed, not {type(buffer).__name__}")
    return view.cast("B")


def mapped(found: Piece | bytes) -> memoryview:
    """A read-only view of a piece of a file."""
    if isinstance(found, bytes):
        return memoryview(found)
    begin = found.start + found.delta
    skip = begin % mmap.ALLOCATIONGRANULARITY
    length = found.stop - found.start
    pages = mmap.mmap(
        found.file.fd,
        skip + length,
        flags=mmap.MAP_SHARED,
        prot=mmap.PROT_READ,
        offset=begin - skip,
    )
    return memoryview(pages)[skip : skip + length]
