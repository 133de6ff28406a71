"""The blocking client: what `hotshard.connect()` returns.

Reads of what a lease covers take the short way at the top of `read` and `read_into`: a look into a dict,
a look at the clock, one system call on the cached file. Everything else is an operation of
`hotshard.ops`, run here step by step with blocking calls.

One client may be used by many threads at once, in a forked child (which goes on with the open files it
inherited, but talks to the server on connections of its own), and in another process after pickling.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from hotshard import many
from hotshard.calls import Page, Prefix, ServerStatus, WarmProgress
from hotshard.core.errors import HotshardError, InvalidRequest
from hotshard.core.objects import ObjectInfo
from hotshard.files import CachedFile, mapped, measured, opened, writable
from hotshard.handles import HandleTable
from hotshard.many import Ask
from hotshard.ops import Limits, Operations
from hotshard.options import ConnectOptions, Options, files_max
from hotshard.routes import blocking_transport
from hotshard.steps import Operation, Pause, ReadBytes, ReadInto, Step, Submit, Tell, Wait
from hotshard.transports import Line, Transport

if TYPE_CHECKING:
    import io

    from typing_extensions import Buffer

T = TypeVar("T")
Contents = list[bytes]
ContentsOrErrors = list[bytes | HotshardError]

_monotonic = time.monotonic
_pread = os.pread
_preadv = os.preadv


class Client:
    """A client of one cache server. Close it, or use it in a `with` statement."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._transport = blocking_transport(options)
        self._table = HandleTable(files_max(options))
        self._ops = Operations(
            self._table,
            Limits(options.timeout_s, options.reconnect_s),
            passes_files=self._transport.passes_files,
            clock=time.monotonic,
            random_unit=random.random,
        )
        self._handles = self._table.handles
        self._closed = False

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return Client, (self._options,)

    def __repr__(self) -> str:
        return f"<hotshard.Client of {self._options.address or 'this node'}>"

    def close(self) -> None:
        """Give up connections and open files; open file objects and maps stay usable as far as they go."""
        self._closed = True
        self._table.clear()
        self._transport.hang_up()

    # -- reading --------------------------------------------------------------------------------

    def stat(self, uri: str) -> ObjectInfo:
        """Describe an object: size, version, mtime."""
        return self.run(self._ops.stat(uri))

    def read(self, uri: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object; like a file, fewer than `length` at its end and none beyond.

        Raises:
            NotFound, PermissionDenied, OriginUnavailable, ServerUnavailable, InvalidRequest.
        """
        try:
            handle = self._handles[uri]
        except KeyError:
            return self.run(self._ops.read(uri, offset, length))
        file = handle.file  # set once; the local variable keeps it open while we read
        if file is not None and _monotonic() < handle.quick_until and offset >= 0:
            count = handle.size - offset
            if length is not None and length < count:
                count = length
            if count > 0:
                data = _pread(file.fd, count, offset + handle.delta)
                if len(data) == count:
                    return data
        return self.run(self._ops.read(uri, offset, length))

    def read_into(self, uri: str, buffer: "Buffer", offset: int = 0) -> int:
        """Fill a writable buffer from an object; returns how many bytes it had from `offset` on."""
        try:
            handle = self._handles[uri]
            if _monotonic() < handle.straight_until and offset >= 0:
                return _preadv(handle.straight_file.fd, (buffer,), offset)
        except (KeyError, BufferError):  # not at hand, or not writable: see below
            pass
        count = self.run(self._ops.read_into(uri, writable(buffer), offset))
        known = self._handles.get(uri)
        if known is not None:
            measured(known)
        return count

    @overload
    def read_many(
        self, asks: Sequence[Ask], *, return_errors: Literal[False] = False
    ) -> Contents: ...

    @overload
    def read_many(self, asks: Sequence[Ask], *, return_errors: bool) -> ContentsOrErrors: ...

    def read_many(
        self, asks: Sequence[Ask], *, return_errors: bool = False
    ) -> Contents | ContentsOrErrors:
        """The bytes of many objects or ranges, in the order asked.

        Args:
            asks: uris, or (uri, offset, length) with length None for "to the end".
            return_errors: put a refusal in its place in the list instead of raising the first.
        """
        return self.run(many.read_many(self._ops, many.ranges(asks), return_errors=return_errors))

    @overload
    def open(self, uri: str, buffering: Literal[0]) -> CachedFile: ...

    @overload
    def open(self, uri: str, buffering: Literal[-1] = -1) -> "io.BufferedReader": ...

    @overload
    def open(self, uri: str, buffering: int) -> "io.BufferedReader | CachedFile": ...

    def open(self, uri: str, buffering: int = -1) -> "io.BufferedReader | CachedFile":
        """A read-only file object, pinned to the version the object has now.

        Like the builtin: buffered by default, `buffering=0` gives the raw file (a CachedFile), any
        other number is the size of the buffer.

        Raises:
            StaleObject: on a read, when it needs bytes that only another version has.
        """
        handle = self.run(self._ops.handle(uri))
        return opened(CachedFile(self.run, self._ops, handle), buffering)

    def map(self, uri: str, offset: int = 0, length: int | None = None) -> memoryview:
        """A read-only view of the bytes, mapped from the cached file: nothing is copied.

        It stays valid when the object is evicted or changes. The range must lie in one shard (256 MiB by
        default). Over gRPC there is no file to map; the view then is of a copy in memory.
        """
        return mapped(self.run(self._ops.locate(uri, offset, length)))

    # -- names ----------------------------------------------------------------------------------

    def list(self, prefix: str, *, recursive: bool = True) -> Iterator[ObjectInfo | Prefix]:
        """What begins with `prefix`, in order; not recursive: names below the next "/" are folded."""
        token = ""
        while True:
            page: Page = self.run(many.list_page(self._ops, prefix, token, recursive=recursive))
            yield from many.entries(page)
            token = page.next_token
            if not token:
                return

    def stat_many(self, uris: Sequence[str]) -> Sequence[ObjectInfo | HotshardError]:
        """Describe many objects, in the order asked, with a refusal in the place of each failure."""
        return self.run(many.stat_many(self._ops, uris))

    # -- warming --------------------------------------------------------------------------------

    def prefetch(self, uris: str | Iterable[str]) -> Sequence[str]:
        """Have objects and prefixes ("s3://bucket/dir/") made resident; returns at once, with job ids."""
        return self.run(many.prefetch(self._ops, many.listed(uris)))

    def warm(
        self,
        uris: str | Iterable[str],
        progress: Callable[[WarmProgress], object] | None = None,
    ) -> WarmProgress:
        """Have objects and prefixes made resident and wait for it.

        Args:
            uris: what to warm.
            progress: called with the state about once a second, and at the end.

        Returns:
            The final state; `.complete` says whether all of it is resident.
        """
        return self.run(many.warm(self._ops, many.listed(uris), progress))

    def status(self) -> ServerStatus:
        """The server in figures."""
        return self.run(many.status(self._ops))

    def check(self) -> None:
        """Find out whether a server is there, or reads go to the origin (after `direct_after_s`).

        Raises:
            ServerUnavailable: neither.
        """
        self._transport.check()

    # -- running --------------------------------------------------------------------------------

    def run(self, operation: Operation[T]) -> T:
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
                    result = talk.do(step)
                except HotshardError as error:
                    failure = error
        finally:
            operation.close()
            talk.end()


class _Talk:
    """Does the steps of one operation."""

    __slots__ = ("_line", "_transport")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._line: Line | None = None

    def do(self, step: Step) -> Any:
        match step:
            case ReadBytes():
                return _pread(step.file.fd, step.count, step.offset)
            case ReadInto():
                return _preadv(step.file.fd, (step.view,), step.offset)
            case Submit():
                return self._talking().submit(step.call)
            case Wait():
                return self._talking().wait(step.ticket)
            case Tell():
                return self._talking().tell(step.touch)
            case Pause():
                return time.sleep(step.seconds)

    def _talking(self) -> Line:
        if self._line is None:
            self._line = self._transport.line()
        return self._line

    def end(self) -> None:
        if self._line is not None:
            self._line.end()


def connect(address: str | None = None, **options: Unpack[ConnectOptions]) -> Client:
    """A client of the cache server at `address`, by default this node's own.

    Args:
        address: "unix:///path/to/local.sock" or "host:port" (gRPC); None: HOTSHARD_ADDRESS, else the
            socket at /run/hotshard/local.sock.
        **options: the fields of `hotshard.options.Options`.

    Raises:
        ServerUnavailable: no server answers there, and `direct` is "never"; or it is not known where to
            look for one.
    """
    client = Client(Options(address, **options))
    try:
        client.check()
    except BaseException:
        client.close()
        raise
    return client
