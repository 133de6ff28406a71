"""Answers to the calls of a client, from the origin itself. Blocking.

An open is answered with a memory file that holds the range asked for, at most ASK_BYTES of it, without a
lease: so nobody keeps it longer than its reader, and what is in memory is what somebody asked for just
now. Warming and status are a server's business.
"""

import mmap
import os
from collections.abc import Mapping
from typing import Any

from hotshard.calls import (
    Call,
    Fetch,
    Fetched,
    ListPage,
    Open,
    Opened,
    OpenMany,
    Piece,
    Stat,
    StatMany,
)
from hotshard.core.errors import HotshardError, NotFound, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import Address, parse
from hotshard.direct.origin import NotHere, Origin
from hotshard.direct.posix import PosixFiles
from hotshard.direct.s3 import S3Objects
from hotshard.openfile import OpenFile

ASK_BYTES = 64 << 20
"""Most that one answer holds."""
AHEAD_BYTES = 1 << 20
"""At least so much is read for an open, as small reads in order would each be a request to S3."""
KNOWN_MAX = 10_000


class Answers:
    """Reads origins as this process may."""

    def __init__(self, origins: Mapping[str, Origin]) -> None:
        self._origins = origins
        # What a version is never changes: an open of one that is known needs no question before its GET.
        self._known: dict[tuple[str, str], ObjectInfo] = {}

    def answer(self, call: Call) -> Any:
        """The reply to a call.

        Raises:
            NotHere: this process cannot answer it; a server could.
            HotshardError: what a server would say.
        """
        match call:
            case Stat():
                return self._stat(call.uri)
            case StatMany():
                return [self._try(self._stat, uri) for uri in call.uris]
            case ListPage():
                address = parse(call.prefix)
                origin = self._origin(address)
                return origin.page(address, call.token, call.page_size, recursive=call.recursive)
            case Open():
                return self._open(call, ASK_BYTES)
            case OpenMany():
                return self._open_many(call)
            case Fetch():
                return self._fetch(call)
            case _:
                raise NotHere(f"{type(call).__name__} needs a cache server")

    def _origin(self, address: Address) -> Origin:
        return self._origins[address.scheme]

    def _stat(self, uri: str) -> ObjectInfo:
        address = parse(uri)
        if address.is_prefix:
            raise NotFound(f"{uri} names a prefix, not an object", uri=uri)
        return self._origin(address).stat(address)

    def _pinned(self, uri: str, version: str) -> ObjectInfo:
        known = self._known.get((uri, version))
        if known is not None:
            return known
        try:
            info = self._stat(uri)
        except NotFound as error:
            if version:
                raise StaleObject(f"{uri} is gone from the origin", uri=uri) from error
            raise
        if version and info.version != version:
            raise StaleObject(f"{uri} changed at the origin", uri=uri)
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[uri, info.version] = info
        return info

    def _open(self, call: Open, bytes_max: int) -> Opened:
        info = self._pinned(call.uri, call.version)
        left = info.size - call.offset
        if not call.length or left <= 0 or not bytes_max:
            return Opened(info, [], 0.0)
        count = min(left, max(call.length, AHEAD_BYTES), bytes_max)
        fd = os.memfd_create("hotshard-direct", os.MFD_CLOEXEC)
        file = OpenFile(fd)
        os.ftruncate(fd, count)
        with mmap.mmap(fd, count) as room, memoryview(room) as view:
            self._origin(parse(info.uri)).read_into(info, call.offset, view)
        piece = Piece(call.offset, call.offset + count, file, -call.offset, sealed=False)
        return Opened(info, [piece], 0.0)

    def _open_many(self, call: OpenMany) -> list[Opened | HotshardError]:
        """As much as one answer holds; of the rest only what it is: it is asked for again, one by one."""
        replies: list[Opened | HotshardError] = []
        left = ASK_BYTES
        for each in call.opens:
            reply = self._try(self._open, each, left)
            replies.append(reply)
            if isinstance(reply, Opened):
                left -= sum(piece.stop - piece.start for piece in reply.pieces)
        return replies

    def _fetch(self, call: Fetch) -> Fetched:
        info = self._pinned(call.uri, call.version)
        count = max(0, min(call.length, info.size - call.offset))
        buffer = bytearray(0 if call.view is not None else count)
        view = call.view[:count] if call.view is not None else memoryview(buffer)
        if count:
            self._origin(parse(info.uri)).read_into(info, call.offset, view)
        return Fetched(info, bytes(buffer), count)

    def _try(self, ask: Any, *arguments: Any) -> Any:
        try:
            return ask(*arguments)
        except NotHere:
            raise
        except HotshardError as error:
            return error


def answers(timeout_s: float, root: str = "/") -> Answers:
    """For the origins that this process can read.

    Args:
        timeout_s: how long a request to S3 may take.
        root: the directory below which files are; ends in "/".
    """
    return Answers({"file": PosixFiles(root), "s3": S3Objects(timeout_s)})
