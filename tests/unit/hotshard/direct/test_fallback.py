"""A client whose server goes away: over a real socket, with a fake server behind it."""

import os
import time
from pathlib import Path

import pytest

import hotshard
from hotshard import aio
from hotshard.options import ConnectOptions
from support.fake_server import FakeServer, FakeStore
from support.waiting import until

FAST: ConnectOptions = {"direct_after_s": 0.3, "reconnect_s": 5.0}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"from the origin")
    return f"file://{tmp_path}/tree/f"


@pytest.fixture
def store(tmp_path: Path, uri: str) -> FakeStore:
    (tmp_path / "store").mkdir()
    store = FakeStore(tmp_path / "store")
    store.put(uri, b"from the server")
    return store


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long somebody has slept, from now on."""
    found: list[float] = []
    sleep = time.sleep

    def noted(seconds: float) -> None:
        found.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", noted)
    return found


def test_reads_go_to_the_origin_and_back(
    tmp_path: Path, uri: str, store: FakeStore, caplog, slept: list[float]
):
    """SEMANTICS 6: while no server answers, a client reads the origin itself, as far as it can."""
    with FakeServer(store, tmp_path / "sock") as server:
        client = hotshard.connect(server.address, **FAST)
        assert client.read(uri) == b"from the server"
        client._table.clear()
    began = time.monotonic()
    assert client.read(uri) == b"from the origin"
    assert time.monotonic() - began >= 0.3
    assert slept
    slept.clear()
    assert client.read_many([uri, (uri, 5, 3)]) == [b"from the origin", b"the"]
    with client.open(uri) as file:
        assert file.read() == b"from the origin"
    assert bytes(client.map(uri)) == b"from the origin"
    assert [entry.uri for entry in client.list(os.path.dirname(uri) + "/")] == [uri]
    assert slept == [], "nobody waits for the server any more"
    assert "reading from the origin until the cache server is back" in caplog.text
    with FakeServer(store, tmp_path / "sock"):
        until(lambda: client.read(uri) == b"from the server")
        client._table.clear()
        assert client.read(uri) == b"from the server"
    assert "the cache server is back" in caplog.text
    client.close()


async def test_the_same_on_an_event_loop(tmp_path: Path, uri: str, store: FakeStore):
    with FakeServer(store, tmp_path / "sock") as server:
        client = aio.connect(server.address, **FAST)
        assert await client.read(uri) == b"from the server"
        client._table.clear()
    assert await client.read(uri) == b"from the origin"
    assert (await client.stat(uri)).size == 15
    with FakeServer(store, tmp_path / "sock"):
        while await client.read(uri) != b"from the server":  # the test's timeout is the limit
            pass
    await client.close()


def test_a_client_starts_without_a_server(tmp_path: Path, uri: str):
    with hotshard.connect(f"unix://{tmp_path}/nobody", direct_after_s=0.3, reconnect_s=0) as client:
        assert client.read(uri) == b"from the origin"
        with pytest.raises(hotshard.ServerUnavailable, match="needs a cache server"):
            client.status()


def test_never_means_never(tmp_path: Path, uri: str, store: FakeStore):
    with pytest.raises(hotshard.ServerUnavailable):
        hotshard.connect(f"unix://{tmp_path}/nobody", direct="never")
    with FakeServer(store, tmp_path / "sock") as server:
        client = hotshard.connect(server.address, direct="never", reconnect_s=1.0)
    with pytest.raises(hotshard.ServerUnavailable):
        client.read(uri)
    client.close()
    with pytest.raises(hotshard.InvalidRequest, match="direct"):
        hotshard.connect(direct="sometimes")


def test_when_neither_can_be_read_the_error_says_both(tmp_path: Path):
    with (
        hotshard.connect(f"unix://{tmp_path}/nobody", direct_after_s=0, reconnect_s=0) as client,
        pytest.raises(hotshard.ServerUnavailable, match=r"server is away.*/nowhere/at"),
    ):
        client.read("file:///nowhere/at/all")


def test_a_refusal_of_the_server_is_not_asked_again(tmp_path: Path, uri: str, store: FakeStore):
    store.remove(uri)
    with (
        FakeServer(store, tmp_path / "sock") as server,
        hotshard.connect(server.address, direct_after_s=0) as client,
        pytest.raises(hotshard.NotFound),
    ):
        client.read(uri)


def test_a_handle_is_stale_when_the_origin_has_another_version(
    tmp_path: Path, uri: str, store: FakeStore
):
    store.reveal = lambda shard, asked: [(asked[0], asked[0] + 4)]
    with FakeServer(store, tmp_path / "sock") as server:
        client = hotshard.connect(server.address, **FAST)
        file = client.open(uri, buffering=0)
        assert file.read(4) == b"from"
    with pytest.raises(hotshard.StaleObject):
        file.read(4)
    client.close()


def test_a_forked_child_goes_on(tmp_path: Path, uri: str):
    with hotshard.connect(f"unix://{tmp_path}/nobody", **FAST) as client:
        assert client.read(uri) == b"from the origin"
        pid = os.fork()
        if pid == 0:
            os._exit(0 if client.read(uri) == b"from the origin" else 1)
        assert os.waitpid(pid, 0)[1] == 0
