"""What a load is put on, behind one call.

A target's description is plain data, so that it can be sent to a client process and opened there.
"""

import os
from dataclasses import dataclass
from typing import Protocol

from benchmarks.sabotage import Buffer, ReadInto, Sabotage


class Target(Protocol):
    """Something that has the data set."""

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
    """Plain files: the limit of the machine."""

    def open(self) -> Target:
        """Files are opened at their first read."""
        return _OpenFiles()


class _OpenFiles:
    """Keeps every file open, as a loader that knows its files would."""

    def __init__(self) -> None:
        self._fds: dict[str, int] = {}

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        fd = self._fds.get(uri)
        if fd is None:
            fd = self._fds[uri] = os.open(uri.removeprefix("file://"), os.O_RDONLY)
        return os.preadv(fd, [buffer], offset)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])


@dataclass(frozen=True, slots=True)
class CacheClient:
    """The client library, over whatever the address says: the local socket or gRPC."""

    address: str

    def open(self) -> Target:
        """Connect."""
        import hotshard

        return hotshard.connect(self.address)


@dataclass(frozen=True, slots=True)
class DirectS3:
    """S3 without a cache, by the fastest of the public clients (benchmarks/engines.py)."""

    bucket: str
    environment: tuple[tuple[str, str], ...]
    """The AWS variables of the server."""

    def open(self) -> Target:
        """Make a client; it connects at its first read."""
        return _S3Ranges(self.bucket, dict(self.environment))


class _S3Ranges:
    def __init__(self, bucket: str, environment: dict[str, str]) -> None:
        import obstore
        from obstore.store import S3Store

        self._get_range = obstore.get_range
        self._start = len(f"s3://{bucket}/")
        self._store = S3Store(
            bucket,
            endpoint=environment["AWS_ENDPOINT_URL_S3"],
            access_key_id=environment["AWS_ACCESS_KEY_ID"],
            secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region=environment["AWS_REGION"],
            client_options={"allow_http": True},
        )

    def read_into(self, uri: str, buffer: Buffer, offset: int) -> int:
        key = uri[self._start :]
        body = self._get_range(self._store, key, start=offset, length=len(buffer))
        count = len(body)
        buffer[:count] = memoryview(body)
        return count

    def close(self) -> None:
        """It has no close; its connections go with it."""


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
