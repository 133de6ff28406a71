"""Who is at an address: a member, a member of something else, or anything at all."""

import asyncio
from typing import Any

import grpc
import pytest

from cache_server.cluster import meeting
from cache_server.cluster.meeting import GrpcMeeter, Silent, Stranger
from cache_server.config import GrpcConfig, HostPort
from cache_server.grpc_server import GrpcServer
from hotshard.core.members import Member, State, Terms
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc
from hotshard.wire import member_from_pb, member_to_pb

TERMS = Terms("prod", 16384, 2, 256 << 20)
ME = Member("a" * 32, "10.0.0.1:7070", ":7071", "eu-1a", 50, State.READY, (1 << 64) - 1)
YOU = Member("b" * 32, "", ":7071", "eu-1b", 400, State.DRAINING, 7)


class Servicer(cache_pb2_grpc.CacheServicer):
    """Knows no call, or one; the others are not of interest here."""

    __abstractmethods__: frozenset[str] = frozenset()


class Answering(Servicer):
    def __init__(self):
        self.asked = []

    async def Meet(self, request, context):
        self.asked.append(request)
        return pb.MeetReply(terms=meeting.terms_to_pb(TERMS), me=member_to_pb(YOU))


class Refusing(Servicer):
    async def Meet(self, request, context):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no cluster here")


class Hanging(Servicer):
    async def Meet(self, request, context):
        await asyncio.Event().wait()


def made(kind: Any) -> Any:
    return kind()


@pytest.fixture
async def at():
    servers = []

    async def start(servicer):
        server = GrpcServer(GrpcConfig(listen=HostPort("127.0.0.1", 0)), servicer)
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{server.port}"

    yield start
    for server in servers:
        await server.close(0.0)


async def test_both_learn_who_the_other_is(at):
    servicer = made(Answering)
    assert await GrpcMeeter().meet(await at(servicer), ME, TERMS) == (YOU, TERMS)
    (request,) = servicer.asked
    assert member_from_pb(request.me) == ME
    assert meeting.terms_from_pb(request.terms) == TERMS


async def test_a_server_that_refuses_and_one_of_an_older_version(at):
    with pytest.raises(Stranger, match="no cluster here"):
        await GrpcMeeter().meet(await at(made(Refusing)), ME, TERMS)
    with pytest.raises(Stranger, match="UNIMPLEMENTED"):
        await GrpcMeeter().meet(await at(made(Servicer)), ME, TERMS)


async def test_nobody_and_somebody_who_does_not_answer(at, monkeypatch):
    with pytest.raises(Silent, match="UNAVAILABLE"):
        await GrpcMeeter().meet("127.0.0.1:1", ME, TERMS)
    monkeypatch.setattr(meeting, "MEET_S", 0.1)
    with pytest.raises(Silent, match="DEADLINE_EXCEEDED"):
        await GrpcMeeter().meet(await at(made(Hanging)), ME, TERMS)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Stranger),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Stranger),
        (b"\0" * 100, Stranger),
        (b"", Silent),
    ],
)
async def test_something_else(answer, kind):
    async def serve(reader, writer):
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(kind):
            await GrpcMeeter().meet(f"127.0.0.1:{port}", ME, TERMS)


def test_a_state_of_a_later_version_counts_as_draining():
    message = member_to_pb(ME)
    message.state = "hibernating"
    assert member_from_pb(message).state is State.DRAINING
