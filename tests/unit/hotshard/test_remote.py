"""gRPC: typed errors, lost connections, TLS, forks, streams that end early."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import hotshard
from hotshard.core.errors import HotshardError
from hotshard.options import ConnectOptions
from support.certificates import Authority
from support.fake_grpc import FakeGrpcServer
from support.fake_server import FakeServer, FakeStore

URI = "s3://bucket/object"


@pytest.fixture
def remote(store: FakeStore) -> Iterator[FakeGrpcServer]:
    with FakeGrpcServer(store) as remote:
        yield remote


@pytest.fixture
def far(remote: FakeGrpcServer) -> Iterator[hotshard.Client]:
    with hotshard.connect(remote.address) as client:
        yield client


@pytest.mark.parametrize(
    "error",
    [
        hotshard.NotFound("no", uri=URI),
        hotshard.PermissionDenied("no", uri=URI),
        hotshard.OriginUnavailable("no", uri=URI),
        hotshard.InvalidRequest("no", uri=URI),
        hotshard.InternalError("no", uri=URI),
    ],
    ids=lambda error: type(error).__name__,
)
def test_refusals_are_typed(far: hotshard.Client, remote: FakeGrpcServer, error: HotshardError):
    for call in (far.stat, far.read):
        remote.refusals.append(error)
        with pytest.raises(type(error)) as caught:
            call(URI)
        assert (str(caught.value), caught.value.uri) == ("no", URI)


def test_overloaded_is_tried_again(far: hotshard.Client, remote: FakeGrpcServer, store: FakeStore):
    store.put(URI, b"hello")
    remote.refusals += [hotshard.Overloaded("full", retry_after_s=0.01)] * 3
    assert far.read(URI) == b"hello"


def test_a_read_of_many_messages(far: hotshard.Client, store: FakeStore):
    data = os.urandom(5 << 20)
    store.put(URI, data)
    assert far.read(URI) == data
    buffer = bytearray(3 << 20)
    assert far.read_into(URI, buffer, 12345) == 3 << 20
    assert buffer == data[12345 : 12345 + (3 << 20)]
    with far.open(URI) as file:
        assert file.read() == data


def test_a_stream_that_ends_early_is_not_the_end_of_the_object(
    far: hotshard.Client, remote: FakeGrpcServer, store: FakeStore
):
    data = os.urandom(10_000)
    store.put(URI, data)
    remote.short_by = 1
    with pytest.raises(hotshard.CorruptData):
        far.read(URI)


def test_a_server_that_stays_away(remote: FakeGrpcServer):
    with hotshard.connect(remote.address, reconnect_s=0.2) as client:
        remote.kill()
        with pytest.raises(hotshard.ServerUnavailable, match="no cache server answers"):
            client.stat(URI)


def test_nobody_there(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hotshard.remote.CHECK_S", 0.1)
    with pytest.raises(hotshard.ServerUnavailable):
        hotshard.connect("127.0.0.1:1", direct="never")


async def test_nobody_there_async(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("hotshard.remote_async.CHECK_S", 0.1)
    with pytest.raises(hotshard.ServerUnavailable):
        async with hotshard.aio.connect("127.0.0.1:1", direct="never"):
            raise AssertionError


def test_something_else_there(far: hotshard.Client):
    """A gRPC server without our service."""
    from concurrent.futures import ThreadPoolExecutor

    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    try:
        with (
            hotshard.connect(f"127.0.0.1:{port}") as client,
            pytest.raises(hotshard.InternalError, match="UNIMPLEMENTED"),
        ):
            client.stat(URI)
    finally:
        other.stop(None).wait()


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(store: FakeStore, tmp_path: Path, mutual: bool):
    store.put(URI, b"hello")
    authority = Authority(tmp_path)
    certificate, key = authority.issue("both")
    pair = (Path(key).read_bytes(), Path(certificate).read_bytes())
    trusted = Path(authority.path).read_bytes()
    credentials = grpc.ssl_server_credentials(
        [pair], trusted if mutual else None, require_client_auth=mutual
    )
    with FakeGrpcServer(store, credentials) as server:
        options = ConnectOptions(ca=authority.path)
        if mutual:
            options |= {"certificate": certificate, "key": key}
        with hotshard.connect(server.address, **options) as client:
            assert client.read(URI) == b"hello"


def test_half_a_key_pair_is_refused():
    with pytest.raises(hotshard.InvalidRequest, match="both"):
        hotshard.connect("localhost:1", certificate="cert.pem")


def test_the_local_socket_is_not_needed_nor_touched(
    far: hotshard.Client, server: FakeServer, store: FakeStore
):
    store.put(URI, b"hello")
    assert far.read(URI) == b"hello"
    assert server.calls.total() == 0


_inherited: list[hotshard.Client] = []


def read_in_child(count: int) -> list[bytes]:
    return [_inherited[0].read(URI) for _ in range(count)]


@pytest.mark.slow
def test_a_forked_child_makes_its_own_channel(tmp_path: Path, store: FakeStore):
    """In a process of its own: gRPC servers, such as this test's, do not survive a fork."""
    store.put(URI, b"hello")
    context = multiprocessing.get_context("spawn")
    with FakeGrpcServer(store) as server:
        results = context.SimpleQueue()
        parent = context.Process(target=fork_after_use, args=(server.address, results))
        parent.start()
        parent.join(60)
        assert parent.exitcode == 0
        assert results.get() == [b"hello"] * 5


def fork_after_use(address: str, results: "multiprocessing.SimpleQueue[list[bytes]]") -> None:
    client = hotshard.connect(address)
    assert client.read(URI) == b"hello"
    _inherited.append(client)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        answers = pool.map(read_in_child, [2, 2], chunksize=1)
        answers.append(read_in_child(1))
        pool.close()
        pool.join()
    results.put([data for answer in answers for data in answer])
    client.close()
