"""The POSIX origin: a directory tree (FSx for Lustre, EFS, NFS, a local directory) as objects.

A file's version is its inode, its mtime in nanoseconds and its size. A fetch compares it before and
after the copy, so that a file changed in place is found out unless its size and mtime stay the same.

All system calls run in a pool of threads of its own: a file server that hangs takes these threads and
nothing else. A call that exceeds its time is given up (OriginUnavailable); its thread stops by itself
when the kernel lets go of it, and writes no more.
"""

import asyncio
import contextlib
import errno
import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cache_server.origins.origin import (
    Fetched,
    ListPage,
    OnRequest,
    Target,
    Want,
    ignore_request,
)
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import FileSink, Transfer, in_thread
from cache_server.origins.tries import counted
from hotshard.core.checksum import Checksum, checksum
from hotshard.core.errors import (
    HotshardError,
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import parse
from hotshard.posix_tree import Pages, Tree, describe, version_of

_PIECE_BYTES = 1 << 20
_PAGE_MAX = 10_000
_GRACE_S = 1.0
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PosixOptions:
    """One POSIX origin."""

    prefix: str
    """The uri prefix to serve, with a final "/"."""
    concurrency: int = 32
    """Threads, and so calls at one time."""
    timeout_s: float = 60.0
    """How long one call (a page of a listing, one block) may take before the tree counts as hung."""


class PosixOrigin:
    """See the module."""

    def __init__(self, options: PosixOptions, on_request: OnRequest = ignore_request) -> None:
        self.prefix = options.prefix
        self._timeout_s = options.timeout_s
        self._on_request = on_request
        self._tree = Tree(parse(options.prefix).key)
        self._pool = Threads(options.concurrency, "posix")
        self._buffers = threading.local()
        self._pages = Pages(self._tree)

    async def start(self) -> None:
        """Nothing to do: a tree that is not mounted yet is reported by the requests to it."""

    async def close(self) -> None:
        """Give up the threads; idempotent."""
        self._pages.clear()
        self._pool.close()

    async def stat(self, uri: str) -> ObjectInfo:
        """Describe one object."""
        path = self._path(uri)
        return await self._run("HEAD", uri, lambda _: self._stat(path, uri))

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of what begins with `prefix`."""
        self._check(prefix)
        start, size = parse(prefix).key, max(1, min(page_size, _PAGE_MAX))
        entries, token = await self._run(
            "LIST",
            prefix,
            lambda _: self._pages.read(start, token, size, recursive=recursive),
        )
        return ListPage(
            objects=[entry.info for entry in entries if entry.info],
            common_prefixes=[f"file://{entry.key}" for entry in entries if not entry.info],
            next_token=token,
        )

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        """None: file systems keep none that can be read."""
        self._check(info.uri)
        return None

    async def fetch(self, want: Want, target: Target) -> Fetched:
        """Copy the wanted range of exactly that version into the target file."""
        info = want.info
        path = self._path(info.uri)
        if want.offset < 0 or want.length < 0 or want.offset + want.length > info.size:
            raise InvalidRequest(
                f"[{want.offset}, {want.offset + want.length}) is not within the"
                f" {info.size} bytes of {info.uri}",
                uri=info.uri,
            )
        if not want.length:
            return Fetched(checksum(want.algorithm, b""), want.algorithm)
        copy = functools.partial(self._copy, path, want, target)
        try:
            return await self._run("GET", info.uri, copy, want.length)
        except NotFound as error:
            raise _stale(info.uri) from error

    # -- in a thread -----------------------------------------------------------------------------

    def _stat(self, path: str, uri: str) -> ObjectInfo:
        fd, status = self._tree.locate(path, uri)
        os.close(fd)
        return describe(uri, status)

    def _copy(self, path: str, want: Want, target: Target, transfer: Transfer) -> Fetched:
        with contextlib.ExitStack() as exits:
            named, status = self._tree.locate(path, want.info.uri)
            exits.callback(os.close, named)
            if version_of(status) != want.info.version:
                raise _stale(want.info.uri)
            source = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
            exits.callback(os.close, source)
            # Its own descriptor: should this thread hang and be given up, the number may be reused.
            own = Target(os.dup(target.fd), target.file_offset)
            exits.callback(os.close, own.fd)
            sink = FileSink(own, want.algorithm, transfer)
            self._pump(source, want, sink)
            if version_of(os.fstat(source)) != want.info.version:
                raise _stale(want.info.uri)
        return Fetched(sink.sum.value(), sink.algorithm)

    def _pump(self, source: int, want: Want, sink: FileSink) -> None:
        buffer = self._buffer()
        offset, stop = want.offset, want.offset + want.length
        while offset < stop:
            count = os.preadv(source, [buffer[: min(_PIECE_BYTES, stop - offset)]], offset)
            if not count:
                raise _stale(want.info.uri)  # cut off meanwhile
            sink(buffer[:count])
            offset += count

    def _buffer(self) -> memoryview:
        buffer: memoryview | None = getattr(self._buffers, "view", None)
        if buffer is None:
            buffer = self._buffers.view = memoryview(bytearray(_PIECE_BYTES))
        return buffer

    # -- on the loop -----------------------------------------------------------------------------

    async def _run(
        self, verb: str, uri: str, call: Callable[[Transfer], T], payload_bytes: int = 0
    ) -> T:
        transfer = Transfer()
        with counted(self._on_request, verb, payload_bytes):
            try:
                async with asyncio.timeout(self._timeout_s):
                    job = functools.partial(call, transfer)
                    return await in_thread(self._pool, job, transfer, grace_s=_GRACE_S)
            except HotshardError:  # StaleObject is an OSError, too
                raise
            except OSError as error:
                raise _failure_of(error, uri, self._timeout_s) from error

    def _path(self, uri: str) -> str:
        self._check(uri)
        address = parse(uri)
        if address.is_prefix:
            raise NotFound(f"{uri} names a directory, not an object", uri=uri)
        return address.key

    def _check(self, uri: str) -> None:
        if not parse(uri).uri.startswith(self.prefix):
            raise InvalidRequest(f"{uri} is not below {self.prefix}", uri=uri)


def _stale(uri: str) -> StaleObject:
    return StaleObject(f"{uri} changed at the origin", uri=uri)


def _failure_of(error: OSError, uri: str, timeout_s: float) -> HotshardError:
    if isinstance(error, TimeoutError) and error.errno is None:
        return OriginUnavailable(f"no answer about {uri} within {timeout_s:g} s", uri=uri)
    if error.errno in _MISSING:
        return NotFound(f"no such file: {uri}", uri=uri)
    if error.errno in _DENIED:
        return PermissionDenied(
            f"the user of this server (uid {os.geteuid()}) may not read {uri} ({error.strerror})",
            uri=uri,
        )
    return OriginUnavailable(f"{uri}: {error.strerror or error}", uri=uri)
