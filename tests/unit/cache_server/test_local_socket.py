"""The local socket with a real cache behind it: what a client could do to it, and it to clients."""

import asyncio
import gc
import os
import resource
import socket
import time
from array import array
from contextlib import asynccontextmanager, closing

import pytest

from cache_server import local_socket
from cache_server.local_calls import FILES_MAX, OPENS_MAX, LocalCalls
from cache_server.local_socket import LocalSocketServer
from cache_server.requests import Requests
from hotshard.core.errors import ConfigError
from hotshard.openfile import OpenFile
from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from support.cache import BLOCK, GEOMETRY, cache_world
from support.content import content

SHARD = GEOMETRY.shard_bytes


class NoStatuses:
    def status(self, *, brief=False):
        return types_pb2.StatusReply()


@asynccontextmanager
async def serving(path, world):
    calls = LocalCalls(
        cache=world.cache,
        warmer=world.warmer,
        statuses=NoStatuses(),
        requests=Requests(world.metrics),
        spawn=world.tasks.spawn,
        node_id="n",
        version="1",
    )
    server = LocalSocketServer(str(path / "s"), calls, mode=0o600, allowed_uids=None)
    await server.start()
    try:
        yield server
    finally:
        await server.close(5)


def connected(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    sock.connect(str(path / "s"))
    return closing(sock)


async def answer(sock) -> tuple[pb.LocalReply, list[OpenFile]]:
    """The next reply."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock.fileno(), ready.set)
    try:
        async with asyncio.timeout(90):
            await ready.wait()
    finally:
        loop.remove_reader(sock.fileno())
    try:
        packet, rights, flags, _ = sock.recvmsg(1 << 18, 4096)
    except ConnectionResetError:  # overtakes what was sent before it, and is reported once
        packet, rights, flags, _ = sock.recvmsg(1 << 18, 4096)
    assert not flags & socket.MSG_CTRUNC
    files = [OpenFile(fd) for _, _, data in rights for fd in array("i", data)]
    if not packet:
        raise EOFError
    return pb.LocalReply.FromString(packet), files


def opening(number, *asks):
    opens = [pb.OpenRequest(uri=uri, offset=at, length=size) for uri, at, size in asks]
    return pb.LocalRequest(id=number, open_many=pb.OpenManyRequest(opens=opens)).SerializeToString()


async def test_many_ranges_in_several_files_each_still_fit_one_packet(tmp_path):
    async with cache_world(tmp_path) as world, serving(tmp_path, world):
        uri = world.origin.put("a", content(3 * SHARD))
        with connected(tmp_path) as sock:
            across = (uri, SHARD - BLOCK, SHARD + 2 * BLOCK)
            sock.send(opening(1, *[across] * OPENS_MAX))
            reply, files = await answer(sock)
    results = reply.open_many.results
    assert [result.HasField("open") for result in results] == [True] * OPENS_MAX
    assert len(files) == FILES_MAX
    counts = [len(result.open.extents) for result in results]
    assert sorted(set(counts)) == [1, 2, 3]
    assert {result.open.extents[0].object_offset // SHARD for result in results} == {0}


async def test_a_reply_that_no_client_has_room_for_is_refused(tmp_path):
    async with cache_world(tmp_path) as world, serving(tmp_path, world):
        uris = [f"s3://memory/{'k' * 1000}{n}" for n in range(100)]
        with connected(tmp_path) as sock:
            for long in (uris, [uri + "l" * 800 for uri in uris]):
                ask = types_pb2.StatManyRequest(uris=long)
                sock.send(pb.LocalRequest(id=7, stat_many=ask).SerializeToString())
                reply, _ = await answer(sock)
                assert reply.id == 7
                assert reply.WhichOneof("result")


async def test_a_server_that_stops_takes_no_more_requests(tmp_path):
    async with cache_world(tmp_path) as world, serving(tmp_path, world) as server:
        uri = world.origin.put("a", content(BLOCK))
        other = world.origin.put("b", content(BLOCK))
        world.origin.gate = asyncio.Event()
        with connected(tmp_path) as sock:
            subscribe = pb.LocalRequest(id=3, subscribe=pb.SubscribeRequest())
            sock.send(subscribe.SerializeToString())
            assert (await answer(sock))[0].id == 3
            sock.send(opening(1, (uri, 0, BLOCK)))
            while not world.origin.fetching:
                await asyncio.sleep(0)
            async with asyncio.TaskGroup() as group:
                group.create_task(server.close(10))
                notice, _ = await answer(sock)
                assert notice.notice.kind == pb.Notice.KIND_GOING_AWAY
                sock.send(opening(2, (other, 0, BLOCK)))
                world.origin.gate.set()
                reply, _ = await answer(sock)
                assert reply.id == 1
            with pytest.raises(EOFError):
                await answer(sock)
        assert world.origin.asked["HEAD"] == 1


async def test_a_request_is_answered_even_when_what_it_waits_for_is_cancelled(
    tmp_path, monkeypatch
):
    async with cache_world(tmp_path) as world, serving(tmp_path, world):
        uri = world.origin.put("a", content(BLOCK))
        one = pb.LocalRequest(id=1, open=pb.OpenRequest(uri=uri, length=BLOCK)).SerializeToString()
        stats = types_pb2.StatManyRequest(uris=[uri])
        described = pb.LocalRequest(id=3, stat_many=stats).SerializeToString()

        async def cancelled(_):
            raise asyncio.CancelledError

        with connected(tmp_path) as sock:
            with monkeypatch.context() as patch:
                patch.setattr(world.origin, "stat", cancelled)
                for packet, errors in (
                    (one, lambda reply: reply.error),
                    (opening(2, (uri, 0, BLOCK)), lambda reply: reply.open_many.results[0].error),
                    (described, lambda reply: reply.stat_many.results[0].error),
                ):
                    sock.send(packet)
                    error = errors((await answer(sock))[0])
                    assert error.code == types_pb2.ERROR_CODE_OVERLOADED
                    assert "was given up" in error.message
            sock.send(one)  # as a client does, after a moment
            reply, _ = await answer(sock)
            assert (reply.id, reply.WhichOneof("result")) == (1, "open")


async def test_out_of_descriptors_it_waits_instead_of_turning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(local_socket, "ACCEPT_PAUSE_S", 0.05)
    async with cache_world(tmp_path) as world, serving(tmp_path, world):
        uri = world.origin.put("a", content(BLOCK))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        gc.collect()  # what earlier tests left must not give descriptors back now
        with connected(tmp_path) as sock:
            resource.setrlimit(resource.RLIMIT_NOFILE, (sock.fileno() + 1, hard))
            full = []
            try:
                while True:
                    full.append(OpenFile(os.open("/dev/null", os.O_RDONLY)))
            except OSError:
                pass
            try:
                began = time.monotonic()
                for _ in range(1000):
                    await asyncio.sleep(0)
                tries_max = 1 + (time.monotonic() - began) / local_socket.ACCEPT_PAUSE_S
                said = [r for r in caplog.records if "cannot accept" in r.message]
                assert 1 <= len(said) <= tries_max
            finally:
                full.clear()
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            sock.send(opening(1, (uri, 0, BLOCK)))
            reply, _ = await answer(sock)
            assert reply.open_many.results[0].open.extents


async def test_a_live_server_with_a_full_backlog_keeps_its_socket(tmp_path):
    path = str(tmp_path / "s")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as hung:
        hung.bind(path)
        hung.listen(0)
        with connected(tmp_path):
            async with cache_world(tmp_path) as world:
                with pytest.raises(ConfigError, match="in use"):
                    async with asyncio.timeout(90), serving(tmp_path, world):
                        pass
    assert os.path.exists(path)
