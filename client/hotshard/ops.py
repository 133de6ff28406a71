"""Every operation of the client, written once, without I/O.

An operation is a generator: it yields steps (ask the server, read a file, wait a while), is sent their
results, and returns the answer. `hotshard.client` runs it with blocking calls, `hotshard.aio` on an event
loop. What to ask for, when to retry, how a big read is cut and what is remembered is decided here alone.

Invariants: a read returns bytes of one version; a pinned read raises StaleObject rather than go on with
another. Every wait is bounded: an answer has `timeout_s`, a server that is restarting `reconnect_s`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hotshard.calls import Call, Fetch, Fetched, Open, Opened, Piece, Stat, Touch
from hotshard.core.backoff import Backoff
from hotshard.core.errors import (
    CorruptData,
    HotshardError,
    InternalError,
    InvalidRequest,
    Overloaded,
    ServerUnavailable,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.handles import Handle, HandleTable
from hotshard.steps import Operation, Pause, ReadBytes, ReadInto, Submit, Tell, Wait

ASK_BYTES = (
    64 << 20
)  # most that one call waits for; at timeout_s = 60 any origin over 1 MiB/s keeps up


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a client is patient."""

    timeout_s: float = 60.0
    """For one answer of the server, which may have to fetch up to 64 MiB for it."""
    reconnect_s: float = 30.0
    """For a server that went away, as it does when it is upgraded."""


class Operations:
    """The operations of one client."""

    def __init__(
        self,
        table: HandleTable,
        limits: Limits,
        *,
        passes_files: bool,
        clock: Callable[[], float],
        random_unit: Callable[[], float],
    ) -> None:
        self._table = table
        self._limits = limits
        self.passes_files = passes_files
        self._clock = clock
        self._random_unit = random_unit
        self._backoff = Backoff(attempts=1_000_000, initial_s=0.05, cap_s=1.0)  # time is the limit

    # -- asking ---------------------------------------------------------------------------------

    def ask(self, call: Call, ticket: object = None) -> Operation[Any]:
        """The reply to `call`, whose ticket may be there already; retries what may be retried."""
        begun = self._clock()
        lost_at: float | None = None
        failures = 0
        while True:
            deadline = self._clock() + self._limits.timeout_s
            try:
                if ticket is None:
                    ticket = yield Submit(call)
                return (yield Wait(ticket))
            except Overloaded as error:
                refusal: HotshardError = error
                least_s = error.retry_after_s
                give_up_at = begun + self._limits.timeout_s
                lost_at = None
            except ServerUnavailable as error:
                refusal, least_s = error, 0.0
                lost_at = self._clock() if lost_at is None else lost_at
                give_up_at = min(deadline, lost_at + self._limits.reconnect_s)
            ticket = None
            failures += 1
            delay_s = self._backoff.delay_s(failures, self._random_unit(), least_s) or 0.0
            if self._clock() + delay_s >= give_up_at:
                raise refusal
            yield Pause(delay_s)

    def ask_early(self, call: Call) -> Operation[object]:
        """A ticket for `call`, or None when it could not be sent: `ask` will try again."""
        try:
            return (yield Submit(call))
        except (ServerUnavailable, Overloaded):
            return None

    # -- what is known --------------------------------------------------------------------------

    def leased(self, uri: str) -> Handle | None:
        """What a lease lets us use without a call."""
        return self._table.leased(uri, self._clock())

    def opened(self, uri: str, reply: Opened) -> Handle:
        """Take in what the server says of the current version."""
        return self._table.opened(uri, reply, self._clock())

    def forget(self, uri: str) -> None:
        """The next use of `uri` asks the server."""
        self._table.forget(uri)

    # -- one object -----------------------------------------------------------------------------

    def stat(self, uri: str) -> Operation[ObjectInfo]:
        """Describe an object; under a lease, from memory."""
        handle = self.leased(uri)
        if handle is not None:
            return handle.info
        info: ObjectInfo = yield from self.ask(Stat(uri))
        return info

    def handle(self, uri: str, offset: int = 0, length: int = 0) -> Operation[Handle]:
        """The current version of an object; the range comes along if it has to be asked for."""
        now = self._clock()
        handle = self._table.leased(uri, now)
        if handle is not None:
            touched = self._table.to_tell(now)
            if touched:
                yield Tell(Touch(touched))
            return handle
        if not self.passes_files:
            return Handle((yield from self.ask(Stat(uri))))
        opened: Opened = yield from self.ask(Open(uri, "", offset, min(length, ASK_BYTES)))
        return self.opened(uri, opened)

    def read(self, uri: str, offset: int, length: int | None) -> Operation[bytes]:
        """Bytes of the current version; fewer than `length` only at the end of the object."""
        check_range(uri, offset, length)
        try:
            return (yield from self._read(uri, offset, length))
        except StaleObject:  # changed under our lease, or half-way: nothing of it was returned yet
            self.forget(uri)
            return (yield from self._read(uri, offset, length))

    def _read(self, uri: str, offset: int, length: int | None) -> Operation[bytes]:
        wanted = ASK_BYTES if length is None else length
        if self.passes_files or wanted == 0:
            handle = yield from self.handle(uri, offset, wanted)
            return (yield from self.read_at(handle, offset, length))
        fetched: Fetched = yield from self.ask(Fetch(uri, "", offset, min(wanted, ASK_BYTES)))
        return (yield from self.rest_of(fetched, offset, length))

    def rest_of(self, fetched: Fetched, offset: int, length: int | None) -> Operation[bytes]:
        """The bytes of a range whose beginning was fetched."""
        rest = None if length is None else length - fetched.count
        if offset + fetched.count >= fetched.info.size or rest == 0:
            return fetched.data
        more = yield from self.read_at(Handle(fetched.info), offset + fetched.count, rest)
        return b"".join((fetched.data, more))

    def read_into(self, uri: str, view: memoryview, offset: int) -> Operation[int]:
        """Fill `view` from the current version; the count is short only at the end of the object."""
        check_range(uri, offset, None)
        try:
            handle = yield from self.handle(uri, offset, len(view))
            return (yield from self.read_at_into(handle, offset, view))
        except StaleObject:
            self.forget(uri)
            handle = yield from self.handle(uri, offset, len(view))
            return (yield from self.read_at_into(handle, offset, view))

    # -- a pinned version -----------------------------------------------------------------------

    def read_at(self, handle: Handle, offset: int, length: int | None) -> Operation[bytes]:
        """Bytes of exactly this version.

        Raises:
            StaleObject: bytes are needed that are not at hand, and the origin has another version now.
        """
        stop = handle.size if length is None else min(handle.size, offset + length)
        chunks: list[bytes] = []
        while offset < stop:
            if self.passes_files:
                piece = yield from self._piece(handle, offset, stop - offset)
                count = min(stop, piece.stop) - offset
                data: bytes = yield ReadBytes(piece.file, count, offset + piece.delta)
            else:
                count = min(stop - offset, ASK_BYTES)
                info = handle.info
                data = (yield from self.ask(Fetch(info.uri, info.version, offset, count))).data
            if not data:
                raise _too_short(handle, offset)
            chunks.append(data)
            offset += len(data)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def read_at_into(self, handle: Handle, offset: int, view: memoryview) -> Operation[int]:
        """The same into `view`, as far as the object goes; returns how many bytes it had."""
        wanted = max(0, min(len(view), handle.size - offset))
        done = 0
        while done < wanted:
            at = offset + done
            if self.passes_files:
                piece = yield from self._piece(handle, at, wanted - done)
                target = view[done : min(wanted, done + piece.stop - at)]
                count: int = yield ReadInto(piece.file, target, at + piece.delta)
            else:
                target = view[done : min(wanted, done + ASK_BYTES)]
                info = handle.info
                call = Fetch(info.uri, info.version, at, len(target), target)
                count = (yield from self.ask(call)).count
            if not count:
                raise _too_short(handle, at)
            done += count
        return done

    def _piece(self, handle: Handle, offset: int, length: int) -> Operation[Piece]:
        """The piece with the byte at `offset`, which lies inside the object."""
        piece = handle.find(offset)
        if piece is not None:
            return piece
        info = handle.info
        call = Open(info.uri, info.version, offset, min(length, ASK_BYTES))
        opened: Opened = yield from self.ask(call)
        if opened.info.version != info.version:
            raise StaleObject(f"{info.uri} has changed since it was opened", uri=info.uri)
        handle.learn(opened.pieces)
        for piece in opened.pieces:
            if piece.start <= offset < piece.stop:
                return piece
        raise InternalError(f"the server left out byte {offset} of {info.uri}", uri=info.uri)

    def locate(self, uri: str, offset: int, length: int | None) -> Operation[Piece | bytes]:
        """[offset, offset + length) as one piece of one file, for mapping; as bytes without files.

        Raises:
            InvalidRequest: the range lies in more than one file.
        """
        check_range(uri, offset, length)
        handle = yield from self.handle(uri, offset, ASK_BYTES if length is None else length)
        stop = handle.size if length is None else min(handle.size, offset + length)
        if offset >= stop:
            return b""
        if not self.passes_files:
            return (yield from self.read_at(handle, offset, stop - offset))
        at = offset
        while at < stop:  # first make it present, each wait bounded
            piece = yield from self._piece(handle, at, stop - at)
            if piece.start <= offset and piece.stop >= stop:
                return Piece(offset, stop, piece.file, piece.delta, sealed=piece.sealed)
            at = piece.stop
        info = handle.info
        opened = yield from self.ask(Open(info.uri, info.version, offset, stop - offset))
        for piece in opened.pieces:
            if piece.start <= offset and piece.stop >= stop:
                return Piece(offset, stop, piece.file, piece.delta, sealed=piece.sealed)
        raise InvalidRequest(
            f"{uri}: bytes {offset} to {stop} lie in several shards, which cannot be mapped as one;"
            f" map each shard by its range, or use read_into()",
            uri=uri,
        )


def check_range(uri: str, offset: int, length: int | None) -> None:
    """Refuse what no file has."""
    if offset < 0 or (length is not None and length < 0):
        raise InvalidRequest(f"{uri}: offset {offset}, length {length}: neither can be negative")


def _too_short(handle: Handle, offset: int) -> CorruptData:
    info = handle.info
    return CorruptData(f"{info.uri}: nothing at byte {offset} of {info.size}", uri=info.uri)
