"""What a load is put on, behind one call.

A target's description is plain data, so that it can be sent to a client process and opened there.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.results import BenchError
from benchmarks.sabotage import Buffer, ReadInto, Sabotage

if TYPE_CHECKING:
    from hotshard.core import bulkwire

_FILES_MAX = 1024  # open at one time, as the client of the cache keeps them
_CONNECT_S = 5.0
_ANSWER_S = 60.0


class Target(Protocol):
    """Something that has the objects."""

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        """Fill the buffer from `offset` of an object on; the number of bytes there were."""

    def close(self) -> None:
        """Give everything up."""


class TargetSpec(Protocol):
    """How to get one; picklable."""

    def open(self) -> Target:
        """Connect."""


@dataclass(frozen=True, slots=True)
class Files:
    """Files by path: on the local disk the limit of the machine, below a mount the mount."""

    keep_open: bool = True
    """No: each read opens and closes its file, as a loader of small files does."""

    def open(self) -> Target:
        """Files are opened at their first read."""
        return _OpenFiles() if self.keep_open else _EachFile()


class _OpenFiles:
    """Keeps files open, as a loader that knows its files would; the oldest makes room."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        fd = self._fds.get(uri)
        if fd is None:
            if len(self._fds) >= _FILES_MAX:
                os.close(self._fds.pop(next(iter(self._fds))))
            fd = self._fds[uri] = os.open(uri.removeprefix("file://"), os.O_RDONLY)
        return os.preadv(fd, [buffer], offset)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


class _EachFile:
    """Open, read, close."""

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        fd = os.open(uri.removeprefix("file://"), os.O_RDONLY)
        try:
            return os.preadv(fd, [buffer], offset)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class CacheClient:
    """The client library, over whatever the address says: the local socket or gRPC."""

    address: str | None
    """None: it looks for one by itself."""

    def open(self) -> Target:
        """Connect. What a server does not answer is a failure here, not a read of the origin."""
        import hotshard

        return hotshard.connect(self.address, direct="never")


@dataclass(frozen=True, slots=True)
class BulkPort:
    """The bulk port of a server, without the client library: one connection, one request at a time."""

    address: str
    cluster: str = ""

    def open(self) -> Target:
        """Connect."""
        return _BulkRanges(self.address, self.cluster)


class _BulkRanges:
    def __init__(self, address: str, cluster: str) -> None:
        from hotshard import bulkline
        from hotshard.core import bulkwire

        host, _, port = address.rpartition(":")
        self._wire, self._broken = bulkwire, bulkline.LineBroken
        self._cluster = bulkwire.cluster_id(cluster)
        try:
            self._line = bulkline.BulkLine(host.strip("[]"), int(port), connect_s=_CONNECT_S)
        except bulkline.LineBroken as error:
            raise BenchError(str(error)) from error
        self._sent = 0

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        view, done = memoryview(buffer), 0
        while done < len(view):
            count = self._piece(uri, view[done : done + self._wire.LENGTH_MAX], offset + done)
            done += count
            if not count:
                break
        return done

    def _piece(self, uri: str, view: memoryview, offset: int) -> int:
        self._sent += 1
        request = self._wire.Request(
            cluster=self._cluster, request_id=self._sent, uri=uri, offset=offset, length=len(view)
        )
        try:
            return self._received(request, view)
        except self._broken as error:
            raise BenchError(f"{uri}: {error}") from error

    def _received(self, request: "bulkwire.Request", view: memoryview) -> int:
        deadline_s = time.monotonic() + _ANSWER_S
        reply = self._line.exchange(request, deadline_s)
        if reply.status is not self._wire.Status.OK:
            raise BenchError(f"{request.uri}: the bulk port says {reply.status.name}: {reply.text}")
        filled = 0

        def take(piece: memoryview) -> None:
            nonlocal filled
            view[filled : filled + len(piece)] = piece
            filled += len(piece)

        self._line.payload(reply.length, take, deadline_s)
        return filled

    def close(self) -> None:
        self._line.close()


@dataclass(frozen=True, slots=True)
class DirectS3:
    """S3 without a cache, by obstore, the fastest of the public clients at small reads."""

    bucket: str
    environment: tuple[tuple[str, str], ...]
    """The AWS variables that say where it is and who asks."""

    def open(self) -> Target:
        """Make a client; it connects at its first read."""
        return _S3Ranges(self.bucket, dict(self.environment))


class _S3Ranges:
    def __init__(self, bucket: str, environment: Mapping[str, str]) -> None:
        import obstore

        self._get_range = obstore.get_range
        self._start = len(f"s3://{bucket}/")
        self._store = s3_store(bucket, environment)

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        key = uri[self._start :]
        body = self._get_range(self._store, key, start=offset, length=len(buffer))
        count = len(body)
        buffer[:count] = memoryview(body)
        return count

    def close(self) -> None:
        """It has no close; its connections go with it."""


def s3_store(bucket: str, environment: Mapping[str, str]) -> Any:
    """An obstore client of a bucket, set up by AWS variables; what they lack, it finds as it does."""
    from obstore.store import S3Store

    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    given: dict[str, Any] = {
        "endpoint": endpoint,
        "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": environment.get("AWS_SESSION_TOKEN"),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
    }
    if endpoint:
        given["client_options"] = {"allow_http": True}
    return S3Store(bucket, **{key: value for key, value in given.items() if value})


@dataclass(frozen=True, slots=True)
class Sabotaged:
    """A target that is slow or wrong on purpose."""

    inner: TargetSpec
    sabotage: Sabotage

    def open(self) -> Target:
        """Open the inner one and spoil its reads."""
        return _Spoiled(self.inner.open(), self.sabotage)


class _Spoiled:
    def __init__(self, inner: Target, sabotage: Sabotage) -> None:
        self.read_into: ReadInto = sabotage.wrap_into(inner.read_into)
        self.close = inner.close
