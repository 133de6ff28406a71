"""Clients to run the contract suite with: each way to reach a server, over each server there is.

A `Setting` is a place to put objects and an address to reach them at. To test another server, add a
context manager that yields Settings to SERVERS.
"""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import hotshard
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


SERVERS: dict[str, Callable[[Path], AbstractContextManager[Setting]]] = {"fake": fake}


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


@pytest.fixture(params=sorted(SERVERS))
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    with ExitStack() as stack:
        yield stack.enter_context(SERVERS[request.param](tmp_path))


@pytest.fixture(params=["sync-local", "async-local", "sync-grpc", "async-grpc"])
async def client(request: pytest.FixtureRequest, setting: Setting) -> AsyncIterator[Awaited]:
    style, way = request.param.split("-")
    address = setting.local if way == "local" else setting.grpc
    if style == "sync":
        with hotshard.connect(address) as blocking:
            yield Awaited(blocking)
    else:
        async with hotshard.aio.connect(address) as awaited:
            yield Awaited(awaited)
