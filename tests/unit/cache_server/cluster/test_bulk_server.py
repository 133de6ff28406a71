import asyncio
import os
import socket
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache_server.cluster import bulk_server
from hotshard.bulkline import BulkLine, LineBroken
from hotshard.bulkports import Attempt, BulkPorts, NoWay, location_from_pb
from hotshard.calls import Fetch
from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import Overloaded
from hotshard.options import Options
from hotshard.v1 import cache_pb2 as pb
from hotshard.wire import info_to_pb
from support.cache import BLOCK
from support.cluster import CLUSTER, cluster, member
from support.content import content
from support.memory_origin import MemoryOrigin
from support.waiting import LIMIT_S


def line_to(server) -> BulkLine:
    return BulkLine("127.0.0.1", server.bulk.port, connect_s=LIMIT_S)


def request_for(info, **fields) -> wire.Request:
    fields = {
        "cluster": wire.cluster_id(CLUSTER),
        "request_id": 7,
        "uri": info.uri,
        "version": info.version,
        "size": info.size,
        "flags": wire.Flag.FORWARDED,
        "length": min(info.size, BLOCK),
        **fields,
    }
    return wire.Request(**fields)


def ask(server, *requests: wire.Request) -> list[tuple[wire.Reply, bytes]]:
    """In a thread: what comes back for these, sent one after the other on one connection."""
    line, answers = line_to(server), []
    try:
        for request in requests:
            reply = line.exchange(request, LIMIT_S)
            data = bytearray()
            line.payload(reply.length, data.extend, LIMIT_S)
            answers.append((reply, bytes(data)))
    finally:
        line.close()
    return answers


@pytest.fixture
async def server(tmp_path):
    async with cluster(tmp_path, 1) as (_, (one,)):
        yield one


async def test_a_block_comes_with_its_checksum(server):
    body = content(3 * BLOCK + 100)
    info = server.origin.info(server.origin.put("a", body))
    first = request_for(info)
    last = request_for(info, offset=3 * BLOCK, length=100)
    for _ in range(2):  # filling, and then sealed
        (one, data), (two, rest) = await asyncio.to_thread(ask, server, first, last)
        assert (data, rest) == (body[:BLOCK], body[3 * BLOCK :])
        assert one.sums == (checksum(Algorithm.XXH3_64, data),)
        assert (one.size, one.text, one.length, two.length) == (len(body), "v1", BLOCK, 100)
        assert two.sums == (checksum(Algorithm.XXH3_64, rest),)
        (whole, data), *_ = await asyncio.to_thread(
            ask, server, request_for(info, length=len(body))
        )
        assert data == body
        assert len(whole.sums) in {0, 1, 4}
    assert server.origin.fetched_bytes == len(body)


async def test_anybody_may_read_any_range(server):
    body = content(20 * BLOCK)
    info = server.origin.info(server.origin.put("a", body))
    plain = request_for(
        info,
        flags=wire.Flag.NONE,
        version="",
        size=wire.UNKNOWN_SIZE,
        offset=BLOCK - 3,
        length=9 * BLOCK,
    )
    ((reply, data),) = await asyncio.to_thread(ask, server, plain)
    assert data == body[BLOCK - 3 : BLOCK - 3 + len(data)]
    assert reply.text == info.version
    assert data


@pytest.mark.parametrize("flags", [wire.Flag.FORWARDED, wire.Flag.ONLY_CACHED, wire.Flag.NONE])
async def test_what_is_in_memory_is_answered_at_once_and_alike(server, monkeypatch, flags):
    body = content(2 * BLOCK + 100)
    info = server.origin.info(server.origin.put("a", body))
    await server.cache.open(info.uri, "", 0, info.size)
    requests = [
        request_for(info, flags=flags, offset=2 * BLOCK, length=100),
        request_for(info, flags=flags, length=2 * BLOCK),
        request_for(info, flags=flags, offset=7, length=BLOCK),
    ]
    before = await asyncio.to_thread(ask, server, *requests)
    calls = server.bulk._calls
    while any(calls.answer_now(request) is None for request in requests):  # until it is sealed
        await asyncio.to_thread(ask, server, *requests)

    async def never(_):
        raise AssertionError("it is in memory")

    monkeypatch.setattr(calls, "answer", never)
    assert await asyncio.to_thread(ask, server, *requests) == before
    monkeypatch.undo()
    others = [
        request_for(info, flags=flags, cluster=1),
        request_for(info, flags=flags, version="v9"),
        request_for(info, flags=flags, offset=5, length=2 * BLOCK + 100),
        request_for(info, flags=flags, length=0),
        request_for(info, flags=flags, kind=wire.Kind.WHOLE),
        request_for(info, flags=flags, size=wire.UNKNOWN_SIZE),
    ]
    assert [calls.answer_now(request) for request in others] == [None] * len(others)


async def test_only_cached_never_fetches(server, caplog):
    info = server.origin.info(server.origin.put("a", content(BLOCK)))
    only = request_for(info, flags=wire.Flag.ONLY_CACHED)
    (reply, _), (read, _), (again, data) = await asyncio.to_thread(
        ask, server, only, request_for(info), only
    )
    assert reply.status is wire.Status.NOT_CACHED
    assert (read.status, again.status, data) == (wire.Status.OK, wire.Status.OK, content(BLOCK))
    assert server.origin.asked["GET"] == 1
    codes = [line.code for line in caplog.records if line.getMessage() == "slow request"]
    assert codes == ["not_cached", "ok"], "the third is answered from memory, without a line"


async def test_requests_may_be_sent_ahead(server):
    body = content(8 * BLOCK)
    info = server.origin.info(server.origin.put("a", body))
    sent = b"".join(
        wire.encode_request(request_for(info, request_id=i, offset=i * BLOCK)) for i in range(8)
    )

    def pipelined() -> bytes:
        line = line_to(server)
        line.sock.sendall(sent)
        found = bytearray()
        for i in range(8):
            head = bytearray(wire.REPLY_HEAD_BYTES)
            line._fill(memoryview(head), time.monotonic() + LIMIT_S)
            rest = bytearray(wire.reply_rest(bytes(head)))
            line._fill(memoryview(rest), time.monotonic() + LIMIT_S)
            reply = wire.decode_reply(bytes(head), bytes(rest))
            assert reply.request_id == i
            line.payload(reply.length, found.extend, LIMIT_S)
        line.close()
        return bytes(found)

    assert await asyncio.to_thread(pipelined) == body


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"cluster": 1}, wire.Status.WRONG_CLUSTER),
        ({"uri": "s3://elsewhere/a"}, wire.Status.PERMISSION),
        ({"uri": "nonsense"}, wire.Status.INVALID),
        ({"offset": 5, "length": BLOCK}, wire.Status.INVALID),
        ({"size": wire.UNKNOWN_SIZE}, wire.Status.INVALID),
        ({"version": "v9"}, wire.Status.STALE),
        ({"uri": "s3://memory/none", "flags": wire.Flag.NONE}, wire.Status.NOT_FOUND),
    ],
)
async def test_refusals_say_why_and_leave_the_connection_usable(server, fields, status):
    info = server.origin.info(server.origin.put("a", content(BLOCK)))
    bad, good = request_for(info, **fields), request_for(info)
    (refused, _), (reply, data) = await asyncio.to_thread(ask, server, bad, good)
    assert refused.status is status
    assert refused.text
    assert (reply.status, data) == (wire.Status.OK, content(BLOCK))
    assert server.count(f'hotshard_bulk_requests_total{{outcome="{status.name.lower()}"}}') == 1


async def test_a_ticket_is_asked_for_where_there_is_a_secret(tmp_path):
    origin = MemoryOrigin()
    info = origin.info(origin.put("a", content(BLOCK)))
    async with member(tmp_path, origin, "m", secret=b"s3cret") as server:
        soon = int(time.time()) + 60
        good = wire.signed(request_for(info), b"s3cret", soon)
        requests = [
            request_for(info),
            wire.signed(request_for(info), b"guess", soon),
            wire.signed(request_for(info), b"s3cret", int(time.time()) - 1),
            good,
            wire.signed(request_for(info, size=5, length=5), b"s3cret", soon),
        ]
        forged = replace(good, uri="s3://memory/b")
        answers = await asyncio.to_thread(ask, server, *requests[:4], forged)
        assert [reply.status.name for reply, _ in answers] == [
            *("FORGED", "FORGED", "FORGED", "OK", "FORGED")
        ]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 8,
        b"\x16\x03\x01" + bytes(200),
        wire.encode_request(wire.Request(cluster=1, uri="s3://b/k"))[:4] + b"\x09" + bytes(100),
        os.urandom(4096),
    ],
)
async def test_garbage_is_refused_with_a_reason_and_counted(server, garbage):
    def send() -> wire.Reply:
        line = line_to(server)
        line.sock.sendall(garbage)
        reply = line._reply(wire.Request(cluster=0, uri="x"), time.monotonic() + LIMIT_S)
        with pytest.raises(LineBroken):
            line.payload(1, lambda _: None, LIMIT_S)
        line.close()
        return reply

    reply = await asyncio.to_thread(send)
    assert reply.status is wire.Status.MALFORMED
    assert "bulk" in reply.text
    assert server.count('hotshard_bulk_refused_total{reason="malformed"}') == 1


async def test_whoever_takes_no_bytes_is_cut_off(server, monkeypatch):
    monkeypatch.setattr("cache_server.cluster.bulk_server.SEND_S", 0.2)
    monkeypatch.setattr("cache_server.cluster.bulk_server.SEND_BYTES_PER_S", 1 << 30)
    body = content(4 << 20)
    uri = server.origin.put("a", body)
    for i in range(128):
        await server.cache.open(uri, "", i * 8 * BLOCK, 8 * BLOCK)
    info = server.origin.info(uri)
    request = wire.encode_request(
        request_for(info, flags=wire.Flag.NONE, version="", length=8 * BLOCK)
    )

    def never_read() -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.bulk.port))
        sock.settimeout(LIMIT_S)
        with pytest.raises(OSError):
            while True:
                sock.sendall(request * 100)
        sock.close()

    await asyncio.to_thread(never_read)
    assert server.count('hotshard_bulk_refused_total{reason="slow"}') == 1


def test_a_time_just_under_a_whole_second_is_one_that_the_kernel_takes(monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs, monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: 0.0)
        for left_s in (2.9999999, 2.9999995, 1e-9, 3.0):
            bulk_server._arm(ours, left_s)
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) > bytes(16)


async def test_a_slow_origin_is_told_from_a_dead_member(server, monkeypatch):
    monkeypatch.setattr(bulk_server, "PENDING_S", 0.02)
    silence_s = 1.5
    info = server.origin.info(server.origin.put("a", content(BLOCK)))
    server.origin.gate = asyncio.Event()

    def patient() -> tuple[wire.Reply, float]:
        line, began = line_to(server), time.monotonic()
        reply = line.exchange(request_for(info), silence_s)
        line.close()
        return reply, time.monotonic() - began

    waiting = asyncio.get_running_loop().run_in_executor(None, patient)
    while not server.origin.fetching:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.2 * silence_s)  # longer than the line waits for one that says nothing
    server.origin.gate.set()
    reply, seconds = await waiting
    assert reply.status is wire.Status.OK
    assert seconds > silence_s


async def test_an_address_in_use_is_a_mistake_of_the_configuration(server):
    from cache_server.cluster.bulk_server import BulkServer
    from hotshard.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"bulk\.listen"):
        await BulkServer(
            "127.0.0.1", server.bulk.port, server.bulk._calls, server.bulk._events
        ).start()


async def test_fuzz_leaves_the_server_serving(server):
    info = server.origin.info(server.origin.put("a", content(BLOCK)))
    valid = wire.encode_request(request_for(info))

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(st.tuples(st.integers(0, len(valid) - 1), st.integers(0, 255)), max_size=5),
        st.integers(0, len(valid)),
    )
    def fuzz(changes, cut):
        data = bytearray(valid)
        for at, value in changes:
            data[at] = value
        with socket.create_connection(("127.0.0.1", server.bulk.port)) as sock:
            sock.sendall(data[:cut] if cut else data)
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(LIMIT_S)
            while sock.recv(65536):
                pass

    await asyncio.to_thread(fuzz)
    ((reply, data),) = await asyncio.to_thread(ask, server, request_for(info))
    assert (reply.status, data) == (wire.Status.OK, content(BLOCK))
    assert server.count('hotshard_bulk_refused_total{reason="internal"}') == 0


def ports_and_fetch(server, info, *, port=None, length=8 * BLOCK):
    """A remote client, and a read of what an answer to Locate says lies at a port."""
    reply = pb.LocateReply(object=info_to_pb(info), cluster=CLUSTER)
    reply.shards.add(index=0, offset=0, size_bytes=info.size, owners=["dead", "one"])
    reply.members.add(id="dead", bulk="127.0.0.1:9")
    reply.members.add(id="one", bulk=f"127.0.0.1:{port or server.bulk.port}")
    ports, view = BulkPorts(Options()), memoryview(bytearray(length))
    call = Fetch(info.uri, info.version, 100, length, view)
    return ports, lambda: ports.fetch(call, location_from_pb(reply), Attempt()), view


async def test_a_remote_client_is_told_when_to_come_back(server, monkeypatch):
    body = content(10 * BLOCK)
    info = server.origin.info(server.origin.put("a", body))
    ports, fetch, view = ports_and_fetch(server, info)
    monkeypatch.setattr(bulk_server, "QUEUE_MAX", 0)
    with pytest.raises(Overloaded) as caught:
        await asyncio.to_thread(fetch)
    assert caught.value.retry_after_s == bulk_server.RETRY_AFTER_S
    assert server.count('hotshard_bulk_requests_total{outcome="overloaded"}') == 1
    monkeypatch.setattr(bulk_server, "QUEUE_MAX", 256)
    fetched = await asyncio.to_thread(fetch)  # into the caller's own buffer, past a dead owner
    assert (fetched.info, fetched.data, fetched.count) == (info, b"", len(view))
    assert view == body[100 : 100 + len(view)]
    ports.close()


async def test_a_port_that_is_no_way_is_left_alone(server):
    info = server.origin.info(server.origin.put("a", content(10 * BLOCK)))
    ports, fetch, _ = ports_and_fetch(server, info, port=9)
    for reason in ("cannot connect", "left alone"):
        with pytest.raises(NoWay, match=reason):
            await asyncio.to_thread(fetch)
    gone = replace(info, version="gone")
    ports, fetch, _ = ports_and_fetch(server, gone)
    with pytest.raises(NoWay, match="STALE"):
        await asyncio.to_thread(fetch)
    ports.close()
