"""The client for asyncio: the names of `hotshard.client`, awaited.

    async with hotshard.aio.connect() as cache:
        data = await cache.read("s3://bucket/key")

The operations are the same generators; here their steps are awaited. The loop never waits for a disk:
reads are tried with RWF_NOWAIT, which only takes what the page cache has, and go to a thread otherwise.
"""

import asyncio
import io
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from hotshard import many
from hotshard.calls import Page, Prefix, ServerStatus, WarmProgress
from hotshard.core.errors import HotshardError, InvalidRequest
from hotshard.core.objects import ObjectInfo
from hotshard.files import mapped, seeked, writable
from hotshard.handles import Handle, HandleTable
from hotshard.many import Ask
from hotshard.openfile import OpenFile
from hotshard.ops import Limits, Operations, check_range
from hotshard.options import ConnectOptions, Options, files_max
from hotshard.routes import async_transport
from hotshard.steps import Operation, Pause, ReadBytes, ReadInto, Step, Submit, Tell, Wait
from hotshard.transports import AsyncLine, AsyncTransport

if TYPE_CHECKING:
    from typing_extensions import Buffer

T = TypeVar("T")
Contents = list[bytes]
ContentsOrErrors = list[bytes | HotshardError]

INLINE_BYTES = 1 << 20  # a bigger copy would hold the loop for more than about 0.1 ms


class AsyncClient:
    """A client of one cache server, for one event loop at a time."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._transport = async_transport(options)
        self._table = HandleTable(files_max(options))
        self._ops = Operations(
            self._table,
            Limits(options.timeout_s, options.reconnect_s),
            passes_files=self._transport.passes_files,
            clock=time.monotonic,
            random_unit=random.random,
        )
        self._closed = False

    async def __aenter__(self) -> "AsyncClient":
        try:
            await self.check()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return AsyncClient, (self._options,)

    def __repr__(self) -> str:
        return f"<hotshard.aio.AsyncClient of {self._options.address or 'this node'}>"

    async def check(self) -> None:
        """As `Client.check`."""
        await self._transport.check()

    async def close(self) -> None:
        """Give up the connection and open files."""
        self._closed = True
        self._table.clear()
        await self._transport.hang_up()

    # -- reading --------------------------------------------------------------------------------

    async def stat(self, uri: str) -> ObjectInfo:
        """As `Client.stat`."""
        return await self.run(self._ops.stat(uri))

    async def read(self, uri: str, offset: int = 0, length: int | None = None) -> bytes:
        """As `Client.read`."""
        return await self.run(self._ops.read(uri, offset, length))

    async def read_into(self, uri: str, buffer: "Buffer", offset: int = 0) -> int:
        """As `Client.read_into`. After a cancellation, leave the buffer alone: a thread may still write."""
        return await self.run(self._ops.read_into(uri, writable(buffer), offset))

    @overload
    async def read_many(
        self, asks: Sequence[Ask], *, return_errors: Literal[False] = False
    ) -> Contents: ...

    @overload
    async def read_many(self, asks: Sequence[Ask], *, return_errors: bool) -> ContentsOrErrors: ...

    async def read_many(
        self, asks: Sequence[Ask], *, return_errors: bool = False
    ) -> Contents | ContentsOrErrors:
        """As `Client.read_many`."""
        operation = many.read_many(self._ops, many.ranges(asks), return_errors=return_errors)
        return await self.run(operation)

    async def open(self, uri: str) -> "AsyncFile":
        """A read-only file object with awaitable reads, pinned to the version the object has now."""
        return AsyncFile(self, self._ops, await self.run(self._ops.handle(uri)))

    async def map(self, uri: str, offset: int = 0, length: int | None = None) -> memoryview:
        """As `Client.map`; touching the view later may wait for the disk."""
        return mapped(await self.run(self._ops.locate(uri, offset, length)))

    # -- names ----------------------------------------------------------------------------------

    async def list(
        self, prefix: str, *, recursive: bool = True
    ) -> AsyncIterator[ObjectInfo | Prefix]:
        """As `Client.list`."""
        token = ""
        while True:
            operation = many.list_page(self._ops, prefix, token, recursive=recursive)
            page: Page = await self.run(operation)
            for entry in many.entries(page):
                yield entry
            token = page.next_token
            if not token:
                return

    async def stat_many(self, uris: Sequence[str]) -> Sequence[ObjectInfo | HotshardError]:
        """As `Client.stat_many`."""
        return await self.run(many.stat_many(self._ops, uris))

    # -- warming --------------------------------------------------------------------------------

    async def prefetch(self, uris: str | Iterable[str]) -> Sequence[str]:
        """As `Client.prefetch`."""
        return await self.run(many.prefetch(self._ops, many.listed(uris)))

    async def warm(
        self,
        uris: str | Iterable[str],
        progress: Callable[[WarmProgress], object] | None = None,
    ) -> WarmProgress:
        """As `Client.warm`; `progress` is an ordinary function."""
        return await self.run(many.warm(self._ops, many.listed(uris), progress))

    async def status(self) -> ServerStatus:
        """As `Client.status`."""
        return await self.run(many.status(self._ops))

    # -- running --------------------------------------------------------------------------------

    async def run(self, operation: Operation[T]) -> T:
        """Carry out an operation."""
        if self._closed:
            raise InvalidRequest("this client is closed")
        talk = _Talk(self._transport)
        result: Any = None
        failure: HotshardError | None = None
        try:
            while True:
                try:
                    step = operation.throw(failure) if failure else operation.send(result)
                except StopIteration as stop:
                    value: T = stop.value
                    return value
                failure = None
                try:
                    result = await talk.do(step)
                except HotshardError as error:
                    failure = error
        finally:
            operation.close()
            talk.end()


class _Talk:
    """Does the steps of one operation."""

    __slots__ = ("_line", "_transport")

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self._line: AsyncLine | None = None

    async def do(self, step: Step) -> Any:
        match step:
            case ReadBytes():
                return await _read_bytes(step.file, step.count, step.offset)
            case ReadInto():
                return await _read_into(step.file, step.view, step.offset)
            case Submit():
                return await self._talking().submit(step.call)
            case Wait():
                return await self._talking().wait(step.ticket)
            case Tell():
                return self._talking().tell(step.touch)
            case Pause():
                return await asyncio.sleep(step.seconds)

    def _talking(self) -> AsyncLine:
        if self._line is None:
            self._line = self._transport.line()
        return self._line

    def end(self) -> None:
        if self._line is not None:
            self._line.end()


async def _read_bytes(file: OpenFile, count: int, offset: int) -> bytes:
    if count <= INLINE_BYTES:
        buffer = bytearray(count)
        if _read_now(file, buffer, offset) == count:
            return bytes(buffer)
    return await asyncio.to_thread(_pread, file, count, offset)


async def _read_into(file: OpenFile, view: memoryview, offset: int) -> int:
    if len(view) <= INLINE_BYTES:
        count = _read_now(file, view, offset)
        if count:
            return count
    return await asyncio.to_thread(_preadv, file, view, offset)


def _read_now(file: OpenFile, view: "Buffer", offset: int) -> int:
    """What the page cache has of it, without waiting; 0: nothing, or the file system cannot tell."""
    try:
        return os.preadv(file.fd, (view,), offset, os.RWF_NOWAIT)
    except OSError:
        return 0


def _pread(file: OpenFile, count: int, offset: int) -> bytes:
    return os.pread(file.fd, count, offset)


def _preadv(file: OpenFile, view: memoryview, offset: int) -> int:
    return os.preadv(file.fd, (view,), offset)


class AsyncFile:
    """One version of one object as a file with awaitable reads; not buffered."""

    def __init__(self, client: AsyncClient, ops: Operations, handle: Handle) -> None:
        self._client = client
        self._ops = ops
        self._handle = handle
        self._position = 0
        self.closed = False

    async def __aenter__(self) -> "AsyncFile":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def info(self) -> ObjectInfo:
        """The object this file is pinned to."""
        return self._handle.info

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

    async def readinto_at(self, buffer: "Buffer", offset: int) -> int:
        """As `CachedFile.readinto_at`."""
        self._check(offset, None)
        operation = self._ops.read_at_into(self._handle, offset, writable(buffer))
        return await self._client.run(operation)

    async def read_at(self, offset: int, length: int | None = None) -> bytes:
        """As `CachedFile.read_at`."""
        self._check(offset, length)
        return await self._client.run(self._ops.read_at(self._handle, offset, length))

    async def readinto(self, buffer: "Buffer") -> int:
        """Fill a writable buffer from the position on; returns 0 at the end."""
        count = await self.readinto_at(buffer, self._position)
        self._position += count
        return count

    async def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, or all that is left."""
        length = None if size is None or size < 0 else size
        data = await self.read_at(self._position, length)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        self._check(0, None)
        self._position = seeked(self.info, self._position, offset, whence)
        return self._position

    def tell(self) -> int:
        """The position."""
        self._check(0, None)
        return self._position

    async def close(self) -> None:
        """Let go of the object; idempotent."""
        self.closed = True

    def _check(self, offset: int, length: int | None) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        check_range(self.name, offset, length)


def connect(address: str | None = None, **options: Unpack[ConnectOptions]) -> AsyncClient:
    """As `hotshard.connect`, for `async with`, which finds out whether a server is there."""
    return AsyncClient(Options(address, **options))
