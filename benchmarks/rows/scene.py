"""What most rows need first: a data set at an origin, a server over it, a client, all of it hot."""

import contextlib
import fcntl
import os
import resource
import struct
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import hotshard
from benchmarks.data import DataSet
from benchmarks.load.objects import Place
from benchmarks.node import Node, cache_node
from benchmarks.results import BenchError
from hotshard.cli.s3_server import SeaweedS3
from hotshard.core.blocks import shard_digest

_BUCKET = "bench"
_UPLOADS = 4  # at a time
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # linux/fs.h: FS_IOC_*
_TOP_OF_TREE = 0x00020000  # FS_TOPDIR_FL
FILES_MAX = 1024  # open files a client keeps: its own default where the limits of the process allow


@dataclass(frozen=True, slots=True)
class Hot:
    """A data set that is resident in a running server."""

    node: Node
    place: Place
    client: hotshard.Client

    @property
    def data(self) -> DataSet:
        """What was written."""
        return self.place.data

    def cached_path(self, index: int) -> str:
        """The sealed file of an object of one shard: what the limits read."""
        info = self.client.stat(self.place.uri(index))
        name = shard_digest(info.uri, info.version, 0).hex()
        path = os.path.join(self.node.cache_dir, "sealed", name[:2], name)
        if os.stat(path).st_size != self.data.size(index):
            raise BenchError(f"{path} is not the cached copy of {info.uri}")
        return path


@contextlib.contextmanager
def served_files(directory: str, data: DataSet) -> Iterator[tuple[Node, Place]]:
    """Write a data set as files and serve them; nothing is resident yet."""
    origin = os.path.join(directory, "origin")
    data.write(origin)
    place = Place(data, f"file://{origin}/")
    with cache_node(os.path.join(directory, "node"), [{"prefix": place.prefix}]) as node:
        yield node, place


@contextlib.contextmanager
def hot_files(directory: str, data: DataSet) -> Iterator[Hot]:
    """Write a data set as files, serve them, and make all of it resident."""
    allow_open_files()
    with served_files(directory, data) as (node, place), connect(node) as client:
        warm(client, place)
        yield Hot(node, place, client)


@dataclass(frozen=True, slots=True)
class Remote:
    """A data set in an S3 server on loopback."""

    server: SeaweedS3
    place: Place
    directory: str
    bucket: str = _BUCKET

    def keys(self) -> list[str]:
        """The keys of all objects."""
        start = len(f"s3://{self.bucket}/")
        return [uri[start:] for uri in self.place.uris()]

    @contextlib.contextmanager
    def cold_node(self, **settings: Any) -> Iterator[Node]:
        """A server over it with an empty cache.

        What it wrote is on the disk when this returns, so that nothing of it is pending while another
        side has its turn. It is not deleted before the row ends: an ext4 without a journal looks at
        every inode deleted in the last minutes when it makes a new one, which would make the next cold
        run slower.
        """
        work = tempfile.mkdtemp(prefix="node-", dir=self.directory)
        origin = {"prefix": self.place.prefix, "endpoint_url": self.server.endpoint_url}
        with cache_node(
            os.path.join(work, "n"), [origin], environment=self.server.environment, **settings
        ) as node:
            yield node
        os.sync()


@contextlib.contextmanager
def in_s3(directory: str, data: DataSet) -> Iterator[Remote]:
    """Start an S3 server and upload a data set."""
    import boto3

    spread(directory)
    with SeaweedS3() as server:
        boto = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        boto.create_bucket(Bucket=_BUCKET)

        def upload(index: int) -> None:
            body = data.content(index, 0, data.size(index))
            boto.put_object(Bucket=_BUCKET, Key=f"data/{data.name(index)}", Body=body)

        with ThreadPoolExecutor(_UPLOADS) as pool:
            deque(pool.map(upload, range(data.count)), maxlen=0)
        yield Remote(server, Place(data, f"s3://{_BUCKET}/data/"), directory)


def spread(directory: str) -> None:
    """Have ext4 put what is made in this directory into block groups of their own, as if it were a root.

    Else a cold run makes its files where rows before it have deleted theirs (see `Remote.cold_node`), up to
    300 us for each instead of 10. Other file systems do not know the flag, and have no need of it.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GET_FLAGS, bytes(4)))
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("i", flags | _TOP_OF_TREE))
    except OSError:
        pass
    finally:
        os.close(fd)


def connect(node: Node) -> hotshard.Client:
    """A client on the local socket, knowing nothing yet."""
    return hotshard.connect(node.socket, files_max=FILES_MAX, direct="never")


def warm(client: hotshard.Client, place: Place) -> None:
    """Make a data set resident.

    Raises:
        BenchError: not all of it is.
    """
    found = client.warm([place.prefix])
    if not found.complete or found.resident_bytes != place.data.total_bytes:
        why = f": {found.failures[0]}" if found.failures else ""
        raise BenchError(
            f"{found.resident_bytes} of {place.data.total_bytes} bytes became resident{why}"
        )


def allow_open_files() -> None:
    """Raise this process' limit of open files as far as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
