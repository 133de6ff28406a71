"""The byte engine of S3: signed GET and HEAD on persistent sockets, blocking, called from worker threads.

botocore costs 1.5 to 3 ms of CPU per request; this costs about 0.1 (docs/adr/0002-s3-byte-engine.md). It
does the common case and nothing else: whatever it does not know (redirects, chunked bodies, other errors
of the client's making) is raised as Unexpected, and aiobotocore does that request instead. Nothing the
other side says is believed before it is checked against what was asked for.
"""

import threading
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import NoReturn

from cache_server.origins.http1 import Head
from cache_server.origins.origin import Fetched, Target, Want
from cache_server.origins.s3_connection import (
    Connection,
    Endpoint,
    StaleConnection,
    Timeouts,
)
from cache_server.origins.s3_replies import (
    Subject,
    Unexpected,
    check_range,
    failure,
    if_match,
    refusal,
    whole_checksum,
)
from cache_server.origins.sigv4 import Keys, encoded_key
from cache_server.origins.transfer import FileSink, Transfer

_IDLE_S = 15.0  # S3 closes idle connections after about 20
_BYTES_PER_S_MIN = 256 << 10  # slower than this, a transfer is given up
_ERROR_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Ask:
    """What every request has."""

    key: str
    subject: Subject
    keys: Keys | None
    """None: anonymous."""


class Engine:
    """Connections to one bucket, and the requests made on them."""

    def __init__(
        self, endpoint: Endpoint, timeouts: Timeouts, *, requester_pays: bool = False
    ) -> None:
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._common = {"host": endpoint.authority}
        if requester_pays:
            self._common["x-amz-request-payer"] = "requester"
        self._idle: deque[Connection] = deque()  # newest last: its buffer is the warmest in cache
        self._lock = threading.Lock()
        self._closed = False

    def head(self, ask: Ask, headers: dict[str, str], transfer: Transfer) -> dict[str, str]:
        """HEAD an object; the headers of the answer.

        Raises:
            Unexpected: let aiobotocore do it.
            Transient: try again.
            HotshardError: final.
        """
        connection, head = self._exchange("HEAD", ask, headers, 0, transfer)
        try:
            if head.status != HTTPStatus.OK:
                _raise_refusal(head, b"", ask.subject)
        except BaseException:
            self._put_back(connection, head)
            raise
        self._put_back(connection, head)
        return head.headers

    def get(self, ask: Ask, want: Want, target: Target, transfer: Transfer) -> Fetched:
        """GET a range of one version into the target file; raises as `head` does, and TargetFailed."""
        headers = {"if-match": if_match(want.info)}
        entire = want.length == want.info.size
        if entire:  # then S3 sends its checksum along, which it does not with a range
            headers["x-amz-checksum-mode"] = "ENABLED"
        else:
            headers["range"] = f"bytes={want.offset}-{want.offset + want.length - 1}"
        connection, head = self._exchange("GET", ask, headers, want.length, transfer)
        healthy = False
        try:
            if head.status not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                body = _error_body(connection, head)
                healthy = body is not None
                _raise_refusal(head, body, ask.subject)
            if head.length is None:
                raise Unexpected("a body without Content-Length")
            check_range(head.status, head.headers, want)
            whole = whole_checksum(head.headers) if entire else None
            sink = FileSink(target, whole.algorithm if whole else want.algorithm, transfer)
            connection.body(want.length, sink)
            healthy = True
        finally:
            if healthy:
                self._put_back(connection, head)
            else:
                connection.close()
        return Fetched(sink.sum.value(), sink.algorithm, whole)

    def close(self) -> None:
        """Close the idle connections; the others close when their request is done."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()

    def _exchange(
        self, method: str, ask: Ask, headers: dict[str, str], length: int, transfer: Transfer
    ) -> tuple[Connection, Head]:
        request = self._request(method, ask, headers)
        fresh = False
        while True:
            connection = self._take(fresh=fresh)
            try:
                transfer.attach(connection.sock)
                now = time.monotonic()
                deadline = now + self._timeouts.read_s + length / _BYTES_PER_S_MIN
                return connection, connection.exchange(request, deadline)
            except StaleConnection:  # cannot come from a fresh one
                connection.close()
                fresh = True
            except BaseException:
                connection.close()
                raise

    def _request(self, method: str, ask: Ask, headers: dict[str, str]) -> bytes:
        path = self._endpoint.path + encoded_key(ask.key)
        sent = self._common | headers
        signer = self._endpoint.signer
        if signer and ask.keys:
            sent = signer.sign(method, path, sent, ask.keys, time.time())
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        return f"{method} {path} HTTP/1.1\r\n{lines}user-agent: hotshard\r\n\r\n".encode()

    def _take(self, *, fresh: bool) -> Connection:
        while not fresh:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if time.monotonic() - connection.idle_since < _IDLE_S:
                return connection
            connection.close()
        return Connection(self._endpoint, self._timeouts)

    def _put_back(self, connection: Connection, head: Head) -> None:
        connection.idle_since = time.monotonic()
        with self._lock:
            if head.persistent and connection.drained and not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def _error_body(connection: Connection, head: Head) -> bytes | None:
    """The body of an error answer; None: it cannot be read, and the connection is of no more use."""
    if head.length is None or head.length > _ERROR_BYTES_MAX:
        return None
    parts: list[bytes] = []
    connection.body(head.length, lambda piece: parts.append(bytes(piece)))
    return b"".join(parts)


def _raise_refusal(head: Head, body: bytes | None, subject: Subject) -> NoReturn:
    refused = refusal(head.status, head.headers, body or b"")
    known = head.status >= 401 and not (body is None and head.status in {401, 403})
    if not known:  # also 403 with an unreadable reason: worth a second request, to say why
        raise Unexpected(f"status {head.status} {refused.code}")
    raise failure(refused, subject)
