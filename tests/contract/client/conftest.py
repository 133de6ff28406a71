"""Clients to run the contract suite with: each way to reach a server, over each server there is, and none.

A `Setting` is a place to put objects and an address to reach them at.
"""

import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import hotshard
from hotshard.cli.cache_process import CacheProcess
from hotshard.cli.ports import free_ports
from hotshard.cli.s3_server import SeaweedS3
from support import s3 as support_s3
from support.fake_grpc import FakeGrpcServer
from support.fake_server import FakeServer, FakeStore


@dataclass(frozen=True)
class Setting:
    """A server with an origin that a test may write to."""

    prefix: str
    """Uris below it are served; ends in "/"."""
    put: Callable[[str, bytes], object]
    """Writes an object, or its next version."""
    remove: Callable[[str], object]
    restart: Callable[[], object]
    """Kills the server and starts it again at the same address."""
    local: str
    grpc: str
    shard_bytes: int
    """Objects larger than this lie in several files."""
    options: dict[str, Any] = field(default_factory=dict)
    """How to connect."""


@contextmanager
def fake(directory: Path) -> Iterator[Setting]:
    """The fake, on both protocols."""
    store = FakeStore(directory)
    shard_bytes = 1 << 20
    with FakeServer(store, directory / "sock") as local, FakeGrpcServer(store) as remote:

        def put(uri: str, data: bytes) -> None:
            store.put(uri, data, shard_bytes=shard_bytes, padding=3)

        def restart() -> None:
            local.restart()
            remote.restart()

        yield Setting(
            "s3://bucket/", put, store.remove, restart, local.address, remote.address, shard_bytes
        )


@pytest.fixture(scope="session")
def node_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CacheProcess]:
    """The real server, over a directory tree that it looks at anew at each open."""
    directory = tmp_path_factory.mktemp("node")
    (directory / "tree").mkdir()
    document = {
        "origins": [{"prefix": f"file://{directory}/tree/", "strict": True}],
        "shard_bytes": 1 << 20,
        "block_bytes": 256 << 10,
        "free_space_floor": "64MiB",
    }
    with CacheProcess(str(directory), document) as process:
        yield process


_places = itertools.count()


def node(process: CacheProcess) -> Setting:
    """A place of its own in the tree of the real server."""
    tree = Path(process.directory) / "tree"
    prefix = f"file://{tree}/{next(_places)}/"

    def put(uri: str, data: bytes) -> None:
        path = Path(uri.removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = tree.parent / "fresh"
        fresh.write_bytes(data)
        fresh.rename(path)

    def remove(uri: str) -> None:
        Path(uri.removeprefix("file://")).unlink()

    def restart() -> None:
        process.kill()
        process.start()

    return Setting(prefix, put, remove, restart, process.address, process.grpc, 1 << 20)


def nobody(directory: Path) -> dict[str, Any]:
    """Addresses at which no server is, and a client that does not wait for one."""
    port = free_ports(1)[0]
    return {
        "restart": lambda: None,
        "local": f"unix://{directory}/nobody.sock",
        "grpc": f"127.0.0.1:{port}",
        "shard_bytes": 1 << 20,
        "options": {"direct_after_s": 0.0, "timeout_s": 1.0, "reconnect_s": 0.0},
    }


def direct_files(directory: Path) -> Setting:
    """A tree of files, and no server."""
    (directory / "tree").mkdir()

    def put(uri: str, data: bytes) -> None:
        path = Path(uri.removeprefix("file://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        (directory / "fresh").write_bytes(data)
        (directory / "fresh").rename(path)

    def remove(uri: str) -> None:
        Path(uri.removeprefix("file://")).unlink()

    (directory / "tree" / "there").touch()
    return Setting(f"file://{directory}/tree/here/", put, remove, **nobody(directory))


def direct_s3(directory: Path, boto: Any, bucket: str) -> Setting:
    """A bucket, and no server."""
    base = f"s3://{bucket}/"

    def put(uri: str, data: bytes) -> None:
        boto.put_object(Bucket=bucket, Key=uri.removeprefix(base), Body=data)

    def remove(uri: str) -> None:
        boto.delete_object(Bucket=bucket, Key=uri.removeprefix(base))

    return Setting(f"{base}{next(_places)}/", put, remove, **nobody(directory))


# What only a server does, and keys that obstore cannot name or SeaweedFS does not take.
SERVED = ("test_warm_", "test_prefetch_", "test_status", "a//b", "x/../y", "key6")
# What is read without a server is read the same way whichever server is away; of one of gRPC it takes a
# second to know. These show that it is taken for away.
ONCE_MORE = ("test_stat_says_", "test_read_many_keeps_", "test_open_gives_", "test_stat_many")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what nobody promises without a server."""
    gone = [
        item
        for item in items
        if ("-direct_" in item.name and any(word in item.name for word in SERVED))
        or ("grpc-direct_" in item.name and not item.name.startswith(ONCE_MORE))
    ]
    if gone:
        config.hook.pytest_deselected(items=gone)
        items[:] = [item for item in items if item not in gone]


class Awaited:
    """A blocking client or file, called as if it were async: one suite serves both."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._wrapped, name)
        if not callable(attribute):
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = attribute(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if name == "open":
                return Awaited(result)
            return result

        return call

    async def listed(self, *args: Any, **kwargs: Any) -> list[Any]:
        """All entries of a listing."""
        entries = self._wrapped.list(*args, **kwargs)
        if hasattr(entries, "__aiter__"):
            return [entry async for entry in entries]
        return list(entries)


@pytest.fixture(params=["fake", "node", "direct_files", "direct_s3"])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    with ExitStack() as stack:
        if request.param == "fake":
            yield stack.enter_context(fake(tmp_path))
        elif request.param == "node":
            yield node(request.getfixturevalue("node_process"))
        elif request.param == "direct_files":
            yield direct_files(tmp_path)
        else:
            yield direct_s3(tmp_path, *request.getfixturevalue("a_bucket"))


@pytest.fixture(scope="module")
def a_bucket(s3: SeaweedS3) -> tuple[Any, str]:
    """One for all tests: making one takes SeaweedFS a second."""
    boto = support_s3.client(s3)
    return boto, support_s3.new_bucket(boto)


@pytest.fixture(params=["sync-local", "async-local", "sync-grpc", "async-grpc"])
async def client(request: pytest.FixtureRequest, setting: Setting) -> AsyncIterator[Awaited]:
    style, way = request.param.split("-")
    address = setting.local if way == "local" else setting.grpc
    if style == "sync":
        with hotshard.connect(address, **setting.options) as blocking:
            yield Awaited(blocking)
    else:
        async with hotshard.aio.connect(address, **setting.options) as awaited:
            yield Awaited(awaited)
