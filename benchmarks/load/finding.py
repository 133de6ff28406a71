"""Which objects a target has, and where a data set is put: what comes before a load on any server."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import hotshard
from benchmarks.data import DataSet
from benchmarks.load.objects import Found
from benchmarks.load.targets import (
    BulkPort,
    CacheClient,
    DirectS3,
    Files,
    TargetSpec,
    s3_store,
)
from benchmarks.results import BenchError
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo

Listing = Iterator[tuple[str, int]]
"""(address, size) pairs."""


class Way(StrEnum):
    """How the bytes come."""

    LOCAL = "local"
    """The client library over the node's socket."""
    GRPC = "grpc"
    """The client library over gRPC."""
    BULK = "bulk"
    """The bulk port of a server."""
    MOUNT = "mount"
    """Files below a mount."""
    FILES = "files"
    """Plain files: the limit of the machine."""
    S3 = "s3"
    """The bucket itself."""


@dataclass(frozen=True, slots=True)
class Aim:
    """One target, as a user names it."""

    way: Way
    prefix: str
    """uri prefix, or a directory for MOUNT and FILES."""
    address: str = ""
    """Of the server: a socket, or host:port of its gRPC port. Empty: where the client looks by itself."""
    bulk_address: str = ""
    cluster: str = ""

    def spec(self, environ: Mapping[str, str], *, keep_open: bool) -> TargetSpec:
        """What client processes open."""
        if self.way in {Way.MOUNT, Way.FILES}:
            return Files(keep_open)
        if self.way is Way.S3:
            aws = tuple((key, value) for key, value in environ.items() if key.startswith("AWS_"))
            return DirectS3(self._bucket(), aws)
        if self.way is Way.BULK:
            if not self.bulk_address:
                raise BenchError("the bulk port needs --bulk host:port")
            return BulkPort(self.bulk_address, self.cluster)
        return CacheClient(self.address or None)

    def find(self, environ: Mapping[str, str], data_seed: int | None = None) -> Found:
        """List what is there.

        Raises:
            BenchError: nothing is, or not what was written with `data_seed`.
        """
        try:
            pairs = sorted((name, size) for name, size in self._listing(environ) if size)
        except (HotshardError, OSError) as error:
            raise BenchError(str(error)) from error
        if not pairs:
            raise BenchError(f"there is nothing to read at {self.prefix}")
        names, sizes = [name for name, _ in pairs], [size for _, size in pairs]
        if data_seed is None:
            return Found(names, sizes)
        data = DataSet(data_seed, len(pairs), sizes[0])
        strange = [n for i, (n, size) in enumerate(pairs)
                   if not n.endswith(data.name(i)) or size != sizes[0]]  # fmt: skip
        if strange:
            raise BenchError(f"{strange[0]} was not written by `python -m benchmarks data`")
        return Found(names, sizes, data)

    def _bucket(self) -> str:
        if not self.prefix.startswith("s3://"):
            raise BenchError(f"{self.prefix}: the target s3 reads s3://bucket/prefix")
        return self.prefix.removeprefix("s3://").partition("/")[0]

    def _listing(self, environ: Mapping[str, str]) -> Listing:
        if self.way in {Way.MOUNT, Way.FILES}:
            return _files(self.prefix.removeprefix("file://"))
        if self.way is Way.S3:
            return _keys(self._bucket(), self.prefix, environ)
        return _served(self.address or None, self.prefix)


def put(data: DataSet, prefix: str, environ: Mapping[str, str]) -> None:
    """Write a data set below file:///directory/ or s3://bucket/prefix/."""
    if not prefix.startswith("s3://"):
        data.write(prefix.removeprefix("file://"))
        return
    import obstore

    bucket, _, below = prefix.removeprefix("s3://").partition("/")
    store = s3_store(bucket, environ)
    for index in range(data.count):
        obstore.put(store, below + data.name(index), b"".join(data.pieces(index)))


def _files(directory: str) -> Listing:
    if not os.path.isdir(directory):
        raise BenchError(f"{directory} is not a directory")
    for parent, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(parent, name)
            yield path, os.path.getsize(path)


def _keys(bucket: str, prefix: str, environ: Mapping[str, str]) -> Listing:
    import obstore

    below = prefix.removeprefix(f"s3://{bucket}/")
    for page in obstore.list(s3_store(bucket, environ), prefix=below.rstrip("/") or None):
        for entry in page:
            yield f"s3://{bucket}/{entry['path']}", entry["size"]


def _served(address: str | None, prefix: str) -> Listing:
    with hotshard.connect(address, direct="never") as client:
        for entry in client.list(prefix):
            if isinstance(entry, ObjectInfo):
                yield entry.uri, entry.size
