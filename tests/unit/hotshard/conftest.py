"""A fake server on a socket, and a client of it."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hotshard
from support.fake_server import FakeServer, FakeStore


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
def server(store: FakeStore, tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(store, tmp_path / "sock") as server:
        yield server


@pytest.fixture
def client(server: FakeServer) -> Iterator[hotshard.Client]:
    with hotshard.connect(server.address) as client:
        yield client


@pytest.fixture
def open_fds() -> Callable[[], int]:
    """How many descriptors of files below tmp_path (and deleted ones) this process has open."""

    def count() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    return count
