"""The byte engine of S3: signed GET and HEAD on persistent connections, on a reactor's loop.

botocore costs 1 to 3 ms of CPU per request; this costs about 0.1 (docs/adr/0002-s3-byte-engine.md). It
does the common case and nothing else: whatever it does not know (redirects, chunked bodies, other errors
of the client's making) is raised as Unexpected, and aiobotocore does that request instead. Nothing the
other side says is believed before it is checked against what was asked for.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from cache_server.origins.http1 import Head
from cache_server.origins.origin import Fetched, First, Landed, Target, Want
from cache_server.origins.s3_connection import (
    Connection,
    Endpoint,
    Receiver,
    StaleConnection,
    Timeouts,
    connect,
    shared_buffer,
)
from cache_server.origins.s3_replies import (
    Subject,
    Unexpected,
    check_range,
    failure,
    if_match,
    object_info,
    refusal,
    whole_checksum,
)
from cache_server.origins.sigv4 import Keys, encoded_key
from cache_server.origins.transfer import FileSink, Transfer
from cache_server.origins.tries import Transient
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo

_IDLE_S = 15.0  # S3 closes idle connections after about 20
_BYTES_PER_S_MIN = 256 << 10  # slower than this, a transfer is given up
_ERROR_BYTES_MAX = 64 << 10
_SUCCESS = {200, 206}

Sink = Callable[[memoryview], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """What every request has."""

    key: str
    subject: Subject
    keys: Keys | None
    """None: anonymous."""


class Engine:
    """Connections to one bucket, and the requests made on them. Belongs to one reactor."""

    def __init__(
        self, endpoint: Endpoint, timeouts: Timeouts, *, requester_pays: bool = False
    ) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._common = {"host": endpoint.authority}
        if requester_pays:
            self._common["x-amz-request-payer"] = "requester"
        self._idle: deque[Connection] = deque()  # newest last: its buffer is the warmest in cache
        self._shared = shared_buffer()
        self._closed = False

    async def head(self, ask: Ask, headers: dict[str, str]) -> dict[str, str]:
        """HEAD an object; the headers of the answer.

        Raises:
            Unexpected: let aiobotocore do it.
            Transient: try again.
            HotshardError: final.
        """
        answer = _Answer(ask.subject, None)
        await self._exchange(self._request("HEAD", ask, headers), answer, self._limit_s(0))
        return answer.success().headers

    async def get(self, ask: Ask, want: Want, target: Target, limit_s: float = math.inf) -> Fetched:
        """GET a range of one version into the target file; raises as `head` does, and TargetFailed."""
        arrival = _Arrival(ask.subject, want, target)
        limit_s = min(limit_s, self._limit_s(want.length))
        await self._exchange(self._get_request(ask, want), arrival.answer, limit_s)
        return arrival.fetched()

    async def get_first(self, ask: Ask, target: Target, length_max: int) -> First:
        """GET all of an object, whatever its version, if it is not too large; raises as `get` does.

        Without a range: then S3 sends its checksum along, and an empty object is no error. Of one that is
        too large the head is read, and the connection given up.
        """
        arrival = _FirstArrival(ask.subject, target, length_max)
        request = self._request("GET", ask, {"x-amz-checksum-mode": "ENABLED"})
        try:
            await self._exchange(request, arrival.answer, self._limit_s(length_max))
        except _TooLarge as found:
            return First(found.info, None)
        return arrival.first()

    def begin_get(
        self, ask: Ask, want: Want, target: Target, limit_s: float, landed: Landed
    ) -> Coroutine[Any, Any, Fetched] | None:
        """Begin a `get` on a connection that waits for one; without one, `get` itself, to be awaited.

        `landed` is called, later, with what `get` would return or raise, or with StaleConnection.
        """
        connection = self._kept()
        if connection is None:
            return self.get(ask, want, target, limit_s)
        arrival = _Arrival(ask.subject, want, target)

        def done(error: Exception | None) -> None:
            self._keep(connection)
            if error is not None:
                landed(error)
                return
            try:
                fetched = arrival.fetched()
            except (Unexpected, Transient, HotshardError) as refused:
                landed(refused)
            else:
                landed(fetched)

        limit_s = min(limit_s, self._limit_s(want.length))
        connection.send(self._get_request(ask, want), arrival.answer, limit_s, done)
        return None

    def close(self) -> None:
        """Close the idle connections; the others close when their request is done."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _get_request(self, ask: Ask, want: Want) -> bytes:
        headers = {"if-match": if_match(want.info)}
        if want.entire:  # then S3 sends its checksum along, which it does not with a range
            headers["x-amz-checksum-mode"] = "ENABLED"
        else:
            headers["range"] = f"bytes={want.offset}-{want.offset + want.length - 1}"
        return self._request("GET", ask, headers)

    def _limit_s(self, length: int) -> float:
        return self._timeouts.read_s + length / _BYTES_PER_S_MIN

    async def _exchange(self, request: bytes, receiver: Receiver, limit_s: float) -> None:
        connection = self._kept() or await self._connect()
        try:
            await connection.exchange(request, receiver, limit_s)
        except StaleConnection:
            connection = await self._connect()
            await connection.exchange(request, receiver, limit_s)
        self._keep(connection)

    async def _connect(self) -> Connection:
        return await connect(self._endpoint, self._timeouts, self._shared)

    def _keep(self, connection: Connection) -> None:
        if connection.reusable and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    def _kept(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        while self._idle and not (self._idle[0].reusable and self._idle[0].idle_since > oldest):
            self._idle.popleft().close()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    def _request(self, method: str, ask: Ask, headers: dict[str, str]) -> bytes:
        path = self._endpoint.path + encoded_key(ask.key)
        sent = self._common | headers
        signer = self._endpoint.signer
        if signer and ask.keys:
            sent = signer.sign(method, path, sent, ask.keys, time.time())
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}user-agent: hotshard\r\n\r\n".encode()


class _Answer:
    """The Receiver of every request: success goes where `accept` says, errors are kept and read."""

    def __init__(self, subject: Subject, accept: Callable[[Head], Sink] | None) -> None:
        self._subject = subject
        self._accept = accept  # None: an answer without a body, to a HEAD
        self._sink: Sink
        self._error = bytearray()
        self._head: Head | None = None

    def begin(self, head: Head) -> int:
        """Decide where the body goes."""
        self._head = head
        accept, self._accept = self._accept, None  # it belongs to who holds this: a cycle otherwise
        if accept is None:
            return 0
        if head.status in _SUCCESS:
            if head.length is None:
                raise Unexpected("a body without Content-Length")
            self._sink = accept(head)
            return head.length
        if head.length is None or head.length > _ERROR_BYTES_MAX:
            raise _refused(head, None, self._subject)
        self._sink = self._error.extend
        return head.length

    def take(self, data: memoryview) -> None:
        """Pass the body on."""
        self._sink(data)

    def success(self) -> Head:
        """The head, if it was one of success; raises what else it means."""
        assert self._head is not None
        if self._head.status not in _SUCCESS:
            raise _refused(self._head, bytes(self._error), self._subject)
        return self._head


class _TooLarge(Unexpected):
    """An object for which there is no room; nothing of it was written."""

    def __init__(self, info: ObjectInfo) -> None:
        super().__init__()
        self.info = info


class _FirstArrival:
    """An object of which only the name was known, on its way into the target."""

    def __init__(self, subject: Subject, target: Target, length_max: int) -> None:
        self.answer = _Answer(subject, self._accept)
        self._uri = subject.uri
        self._target = target
        self._length_max = length_max
        self._info: ObjectInfo
        self._whole: Checksum | None = None
        self._sink: FileSink

    def _accept(self, head: Head) -> Sink:
        if head.status != HTTPStatus.OK:
            raise Unexpected(f"status {head.status} for all of an object")
        self._info = object_info(self._uri, head.headers)
        if self._info.size > self._length_max:
            raise _TooLarge(self._info)
        self._whole = whole_checksum(head.headers)
        algorithm = self._whole.algorithm if self._whole else Algorithm.XXH3_64
        self._sink = FileSink(self._target, algorithm, Transfer())
        if self._info.size:
            self._sink.allocate(self._info.size)
        return self._sink

    def first(self) -> First:
        """What has come; raises what the answer means if it was none of success."""
        self.answer.success()
        fetched = Fetched(self._sink.sum.value(), self._sink.algorithm, self._whole)
        return First(self._info, fetched)


class _Arrival:
    """The wanted range on its way into the target."""

    def __init__(self, subject: Subject, want: Want, target: Target) -> None:
        self.answer = _Answer(subject, self._accept)
        self._want = want
        self._target = target
        self._whole: Checksum | None = None
        self._sink: FileSink

    def _accept(self, head: Head) -> Sink:
        """Where the body goes, if it is what was asked for."""
        check_range(head.status, head.headers, self._want)
        whole = self._whole = whole_checksum(head.headers) if self._want.entire else None
        algorithm = whole.algorithm if whole else self._want.algorithm
        self._sink = FileSink(self._target, algorithm, Transfer())
        self._sink.allocate(self._want.length)
        return self._sink

    def fetched(self) -> Fetched:
        """What was written; raises what the answer means if it was none of success."""
        self.answer.success()
        return Fetched(self._sink.sum.value(), self._sink.algorithm, self._whole)


def _refused(
    head: Head, body: bytes | None, subject: Subject
) -> HotshardError | Transient | Unexpected:
    refused = refusal(head.status, head.headers, body or b"")
    known = head.status >= 401 and not (body is None and head.status in {401, 403})
    if not known:  # also 403 with an unreadable reason: worth a second request, to say why
        return Unexpected(f"status {head.status} {refused.code}")
    return failure(refused, subject)
