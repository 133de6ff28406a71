"""Failures between members: wrong bytes, overload, gRPC instead of the bulk port, hedges, TLS."""

import asyncio
import ssl
import subprocess
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc
import pytest

from cache_server.cluster.bulk_calls import Answer
from cache_server.cluster.bulk_client import BulkClient, BulkOptions, Landing, Mismatch
from cache_server.cluster.bulk_server import BulkServer
from cache_server.cluster.peers import PeerFailed
from cache_server.origins.origin import Target, Want
from hotshard.core import bulkwire as wire
from hotshard.core.blocks import shard_digest
from hotshard.core.errors import Overloaded
from hotshard.v1 import cache_pb2_grpc
from support.cache import BLOCK
from support.cluster import cluster, no_deadlines, read
from support.content import content
from support.waiting import comes


class Spoiled:
    """Answers through another, changed on the way."""

    def __init__(self, calls, change):
        self.calls = calls
        self.change = change
        self.asked = 0

    def answer_now(self, _: wire.Request) -> None:
        """Never: what is changed goes through `answer`."""

    async def answer(self, request: wire.Request) -> Answer:
        self.asked += 1
        changed: Answer = await self.change(await self.calls.answer(request), request)
        return changed


def spoil(member, change) -> Spoiled:
    spoiled = Spoiled(member.bulk._calls, change)
    member.bulk._calls = spoiled
    return spoiled


def owners(members, origin, uri):
    """The members, in the order in which they own it."""
    digest = shard_digest(uri, origin.info(uri).version, 0)
    ranked = [peer.id for peer in members[0].placement.owners(digest)]
    by_id = {m.placement.me: m for m in members}
    rest = [m for m in members if m.placement.me not in ranked]
    return [by_id[i] for i in ranked] + rest


async def test_wrong_bytes_are_never_given_and_the_next_source_is_asked(tmp_path, monkeypatch):
    """SEMANTICS 14: bytes of a peer are checked before they are kept or served."""
    no_deadlines(monkeypatch)
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(3 * BLOCK)
        uri = origin.put("a", body)
        first, second, third = owners(members, origin, uri)

        async def change(answer, _):
            sums = tuple(s ^ 1 for s in answer.reply.sums)
            return replace(answer, reply=replace(answer.reply, sums=sums))

        spoil(first, change)
        assert await read(third, uri) == body
        assert third.count('hotshard_peer_requests_total{outcome="mismatch",path="bulk"}') > 0
        # Counted after the last byte has left.
        await comes(lambda: second.count("hotshard_bulk_sent_bytes_total") >= len(body))
        assert second.count("hotshard_bulk_sent_bytes_total") == len(body)


async def test_an_overloaded_member_is_asked_again_when_it_says(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        body = content(100)
        uri = origin.put("a", body)
        first, other = owners(members, origin, uri)

        async def change(answer, request):
            if spoiled.asked > 2:
                return answer
            full = Overloaded("full", retry_after_s=0.02)
            return Answer(wire.refusal(request.request_id, full))

        spoiled = spoil(first, change)
        assert await read(other, uri) == body
        assert spoiled.asked == 3
        assert first.count("hotshard_peers_exhausted_total") == 0
        assert other.received() == 100


async def test_a_slow_member_is_hedged_once_the_usual_time_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("cache_server.core.hedge.TOKENS_MAX", 50.0)
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(100)
        uri = origin.put("a", body)
        first, second, third = owners(members, origin, uri)
        assert await read(second, uri) == body  # it has a replica
        slow = asyncio.Event()

        async def change(answer, _):
            await slow.wait()
            return answer

        hedge = third.blocks._hedge
        for _ in range(100):
            hedge.asked()
            hedge.answered(0.001)
        spoil(first, change)
        assert await read(third, uri) == body
        assert third.count('hotshard_peer_hedges_total{result="won"}') == 1
        slow.set()
        assert origin.fetched_bytes == len(body)


async def test_a_breaker_leaves_a_dead_member_alone(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        dead, *others = members
        await dead.bulk.close(0)
        uris = [origin.put(f"{i}", content(10, seed=i)) for i in range(60)]
        for uri in uris:
            await read(others[0], uri)
        outcome = 'hotshard_peer_requests_total{{outcome="{}",path="bulk"}}'
        assert others[0].count(outcome.format("unreachable")) < 10
        assert others[0].count(outcome.format("open")) > 5
        assert others[0].count('hotshard_peer_breaker_open{peer="m0"}') == 1


async def test_a_silent_host_is_left_alone_after_two_tries_and_looked_at_at_once(tmp_path):
    """Nobody is at its gRPC port: that is more than an answer that does not come."""
    async with cluster(tmp_path, 2) as (_, members):
        silent, other = members
        gone = replace(silent.address, grpc="127.0.0.1:1")
        for _ in range(4):
            with pytest.raises(PeerFailed):
                await other.peers.stat(gone, "s3://memory/a")
        outcome = 'hotshard_peer_requests_total{{outcome="{}",path="grpc"}}'
        assert other.count(outcome.format("unreachable")) == 2
        assert other.count(outcome.format("open")) == 2
        assert other.placement.suspected == ["m0", "m0"]


async def test_a_member_that_was_started_again_is_asked_again(tmp_path):
    async with cluster(tmp_path, 2) as (_, members):
        restarted, other = members
        await other.peers.retain({"m0": 1, "m1": 1})
        gone = replace(restarted.address, grpc="127.0.0.1:1")
        for tries in (2, 4):
            for _ in range(3):
                with pytest.raises(PeerFailed):
                    await other.peers.stat(gone, "s3://memory/a")
            outcome = 'hotshard_peer_requests_total{outcome="unreachable",path="grpc"}'
            assert other.count(outcome) == tries
            assert other.count('hotshard_peer_breaker_open{peer="m0"}') == 1
            await other.peers.retain({"m0": tries, "m1": 1})
            assert other.count('hotshard_peer_breaker_open{peer="m0"}') == 0


class Silent(cache_pb2_grpc.CacheServicer):
    """A member that takes questions and answers none."""

    def __init__(self):
        self.asked = 0

    async def Stat(self, request, context):
        self.asked += 1
        await asyncio.Event().wait()

    async def List(self, request, context):
        self.asked += 1
        await asyncio.Event().wait()
        yield

    async def Read(self, request, context):
        self.asked += 1
        await asyncio.Event().wait()
        yield


@asynccontextmanager
async def silent_member():
    servicer, server = Silent(), grpc.aio.server()
    cache_pb2_grpc.add_CacheServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield servicer, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.mark.parametrize("call", ["stat", "list_page", "read"])
async def test_what_is_asked_when_a_member_is_forgotten_is_asked_of_the_next(tmp_path, call):
    """A channel that is closed cancels its calls; whoever waits for one is not cancelled by that."""
    async with cluster(tmp_path, 2) as (origin, members), silent_member() as (silent, address):
        body = content(10)
        uri = origin.put("a", body)
        restarted, other = owners(members, origin, uri)
        gone = replace(restarted.address, grpc=address, bulk="")
        other.placement.members = [gone if m.id == gone.id else m for m in other.placement.members]
        ways = {
            "stat": lambda: other.peers.stat(gone, uri),
            "list_page": lambda: other.peers.list_page(
                gone, origin.prefix, recursive=True, token="", page_size=10
            ),
            "read": lambda: other.peers.block(
                gone,
                Want(origin.info(uri), 0, 10),
                Landing(Target(-1, 0)),
                wire.Flag.FORWARDED,
                demand=True,
            ),
        }
        asking = asyncio.create_task(ways[call]())
        await comes(lambda: silent.asked)
        await other.peers.retain({})
        with pytest.raises(PeerFailed):
            await asking
        assert not asking.cancelled()


async def test_a_reader_does_not_notice_that_a_member_is_forgotten_half_way(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members), silent_member() as (silent, address):
        body = content(10)
        uri = origin.put("a", body)
        restarted, other = owners(members, origin, uri)
        gone = replace(restarted.address, grpc=address, bulk="")
        other.placement.members = [gone if m.id == gone.id else m for m in other.placement.members]
        reading = asyncio.create_task(read(other, uri))
        await comes(lambda: silent.asked)
        await other.peers.retain({})
        await comes(lambda: silent.asked == 2 or reading.done())
        await other.peers.retain({})
        assert await reading == body


async def test_a_member_that_left_is_forgotten(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        uri = origin.put("a", content(10))
        _, other = owners(members, origin, uri)
        await read(other, uri)
        assert other.received() == 10
        await other.peers.retain({})
        assert other.received() == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[str, str]:
    where = tmp_path_factory.mktemp("tls")
    key, cert = str(where / "key"), str(where / "cert")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key]
    command += ["-out", cert, "-days", "2", "-subj", "/CN=member"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


async def test_over_tls_the_same_bytes_come(tmp_path, certificate):
    cert, key = certificate
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    client_side = ssl.create_default_context(cafile=cert)
    client_side.check_hostname = False
    async with cluster(tmp_path, 1) as (origin, (one,)):
        body = content(7 * BLOCK)
        info = origin.info(origin.put("a", body))
        tls = BulkServer("127.0.0.1", 0, one.bulk._calls, one.bulk._events, tls=server_side)
        await tls.start()
        one.tasks.spawn(tls.run())
        client = BulkClient(
            f"127.0.0.1:{tls.port}", BulkOptions("test", tls=client_side), one.peers._pool
        )
        out = tmp_path / "out"
        with out.open("w+b") as file:
            for offset in range(0, len(body), BLOCK):
                want = Want(info, offset, BLOCK)
                landing = Landing(Target(file.fileno(), offset))
                await client.read(want, landing, wire.Flag.FORWARDED, 0)
        client.close()
        await tls.close(1)
        assert out.read_bytes() == body


async def test_a_block_larger_than_the_small_ones_is_checked_too(tmp_path, monkeypatch):
    monkeypatch.setattr("cache_server.cluster.bulk_client.SMALL_BYTES", 10)
    async with cluster(tmp_path, 1) as (origin, (one,)):
        info = origin.info(origin.put("a", content(BLOCK)))
        client = BulkClient(f"127.0.0.1:{one.bulk.port}", BulkOptions("test"), one.peers._pool)
        want = Want(info, 0, BLOCK)
        with (tmp_path / "out").open("w+b") as file:
            landing = Landing(Target(file.fileno(), 0))
            await client.read(want, landing, wire.Flag.FORWARDED, 0)

            async def change(answer, _):
                return replace(answer, reply=replace(answer.reply, sums=(1,)))

            spoil(one, change)
            with pytest.raises(Mismatch):
                await client.read(want, landing, wire.Flag.FORWARDED, 0)
        client.close()
        assert (tmp_path / "out").read_bytes() == content(BLOCK)


async def test_a_cancelled_reader_leaves_no_thread_writing(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        uri = origin.put("a", content(BLOCK))
        first, other = owners(members, origin, uri)
        origin.gate = asyncio.Event()
        want = Want(origin.info(uri), 0, BLOCK)
        with (tmp_path / "out").open("w+b") as file:
            landing = Landing(Target(file.fileno(), 0))
            peer = first.address
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await other.peers.block(peer, want, landing, wire.Flag.FORWARDED, demand=True)
        origin.gate.set()
        assert await read(other, uri) == content(BLOCK)


async def test_without_any_address_a_member_has_failed(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        uri = origin.put("a", content(BLOCK))
        await read(members[0], uri)
        bare = replace(members[1].address, bulk="", grpc="")
        with pytest.raises(PeerFailed):
            await members[0].peers.stat(bare, uri)
