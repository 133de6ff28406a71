"""The blocking client: the short way, leases, recency, pickling, threads."""

import os
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import hotshard
from hotshard import handles
from support.fake_server import FakeServer, FakeStore

URI = "s3://bucket/object"


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No reuse becomes worth telling within a test."""
    monkeypatch.setattr(handles, "TOUCH_PERIOD_S", 1000.0)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("padding", [0, 17])
def test_under_a_lease_reads_cost_no_call(
    client: hotshard.Client, server: FakeServer, store: FakeStore, padding: int
):
    data = os.urandom(50_000)
    store.put(URI, data, padding=padding)
    client.read(URI)
    client.read_into(URI, bytearray(1))
    calls = server.calls.total()
    server.kill()
    dice = random.Random(1)
    for _ in range(200):
        offset, length = dice.randint(0, 60_000), dice.randint(0, 60_000)
        expected = data[offset : offset + length]
        assert client.read(URI, offset, length) == expected
        assert client.read(URI, offset) == data[offset:]
        buffer = bytearray(length)
        assert client.read_into(URI, buffer, offset) == len(expected)
        assert buffer[: len(expected)] == expected
    assert client.stat(URI).size == 50_000
    assert client.read_many([URI, (URI, 5, 5)]) == [data, data[5:10]]
    with client.open(URI) as file:
        assert file.read() == data
    assert server.calls.total() == calls


def test_without_a_lease_each_read_asks(
    client: hotshard.Client, server: FakeServer, store: FakeStore
):
    server.lease_ms = 0
    for version in range(5):
        store.put(URI, bytes([version]) * 100)
        assert client.read(URI) == bytes([version]) * 100
        buffer = bytearray(100)
        client.read_into(URI, buffer)
        assert buffer == bytes([version]) * 100
    assert server.calls["open"] == 10


def test_within_a_lease_the_old_version_is_served_whole(client: hotshard.Client, store: FakeStore):
    store.put(URI, b"a" * 100)
    assert client.read(URI) == b"a" * 100
    store.put(URI, b"b" * 100)
    assert client.read(URI) == b"a" * 100


def test_reuse_is_told_to_the_server(
    client: hotshard.Client,
    server: FakeServer,
    store: FakeStore,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(handles, "TOUCH_PERIOD_S", 0.0)
    store.put(URI, b"hello")
    for _ in range(10):
        assert client.read(URI) == b"hello"
    client.status()  # on the same conversation, so behind the touches
    assert server.calls["open"] == 1
    assert set(server.touched) == {URI}


def test_pickling_carries_the_options_alone(server: FakeServer, store: FakeStore):
    store.put(URI, b"hello")
    with hotshard.connect(server.address, timeout_s=7.0, files_max=33) as client:
        client.read(URI)
        pickled = pickle.dumps(client)
        assert len(pickled) < 500
        with pickle.loads(pickled) as copy:
            assert copy._options == client._options
            assert copy.read(URI) == b"hello"
    assert server.calls["open"] == 2


def test_many_threads_on_few_objects(server: FakeServer, store: FakeStore):
    """More objects than the table holds, so that handles come and go under the readers."""
    contents = {f"s3://bucket/{i}": os.urandom(3000) for i in range(40)}
    for uri, data in contents.items():
        store.put(uri, data, shard_bytes=1000 if uri.endswith("7") else 1 << 20)
    with hotshard.connect(server.address, files_max=10) as client:

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(150):
                uri = f"s3://bucket/{dice.randrange(40)}"
                offset = dice.randrange(3000)
                match dice.randrange(4):
                    case 0:
                        assert client.read(uri, offset) == contents[uri][offset:]
                    case 1:
                        buffer = bytearray(3000)
                        count = client.read_into(uri, buffer, offset)
                        assert buffer[:count] == contents[uri][offset:]
                    case 2:
                        with client.open(uri) as file:
                            file.seek(offset)
                            assert file.read() == contents[uri][offset:]
                    case _:
                        uris = dice.sample(sorted(contents), 5)
                        assert client.read_many(uris) == [contents[u] for u in uris]

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))


def test_addresses(server: FakeServer, store: FakeStore, monkeypatch: pytest.MonkeyPatch):
    store.put(URI, b"hello")
    monkeypatch.setenv("HOTSHARD_ADDRESS", server.address)
    with hotshard.connect() as client:
        assert client.read(URI) == b"hello"
        assert "this node" in repr(client)
    monkeypatch.delenv("HOTSHARD_ADDRESS")
    with hotshard.connect(str(server.path)) as client:
        assert client.read(URI) == b"hello"
        assert str(server.path) in repr(client)


def test_a_file_goes_on_after_its_client_as_far_as_it_can(
    client: hotshard.Client, store: FakeStore, tmp_path: Path
):
    store.put(URI, b"x" * 2000, shard_bytes=1000)
    with client.open(URI, buffering=0) as file:
        assert file.read(1) == b"x"
        client.close()
        with pytest.raises(hotshard.InvalidRequest, match="closed"):
            file.read_at(1500, 1)


def test_list_is_lazy(client: hotshard.Client, server: FakeServer, store: FakeStore):
    for i in range(200):
        store.put(f"s3://bucket/{i:03}", b"")
    entries = client.list("s3://bucket/")
    assert server.calls["list"] == 0
    assert next(entries).uri == "s3://bucket/000"
    assert server.calls["list"] == 1
    assert len(list(entries)) == 199
    assert server.calls["list"] == 3
