"""Members with certificates: believed by authority and by one name, wherever they are."""

import asyncio

import grpc
import pytest

from cache_server.cluster.channels import open_channel, read_credentials
from cache_server.config import GrpcConfig, GrpcTlsConfig, HostPort
from cache_server.grpc_server import GrpcServer
from hotshard.v1 import cache_pb2_grpc, types_pb2
from support.certificates import Authority
from support.waiting import LIMIT_S

NAME = "hotshard-peers.ml.svc"


class Answering(cache_pb2_grpc.CacheServicer):
    """Knows one call."""

    __abstractmethods__: frozenset[str] = frozenset()

    async def Status(self, request, context):
        return types_pb2.StatusReply(node_id="n1")


def identity(authority: Authority, server_name: str | None, host: str) -> GrpcTlsConfig:
    certificate, key = authority.issue(host, host)
    return GrpcTlsConfig(
        certificate=certificate, key=key, client_ca=authority.path, server_name=server_name
    )


async def ask(tls: GrpcTlsConfig, port: int) -> str:
    credentials = await asyncio.to_thread(read_credentials, tls)
    async with open_channel(f"127.0.0.1:{port}", credentials, ()) as channel:
        stub = cache_pb2_grpc.CacheStub(channel)
        return (await stub.Status(types_pb2.StatusRequest(), timeout=LIMIT_S)).node_id


@pytest.fixture
async def serving():
    servers = []

    async def start(tls: GrpcTlsConfig) -> int:
        config = GrpcConfig(listen=HostPort("127.0.0.1", 0), tls=tls)
        server = GrpcServer(config, Answering())  # type: ignore[abstract]
        await server.start()
        servers.append(server)
        return server.port

    yield start
    for server in servers:
        await server.close(0.0)


async def test_a_name_that_all_share_stands_for_every_address(serving, tmp_path):
    shared = identity(Authority(tmp_path), NAME, NAME)
    assert await ask(shared, await serving(shared)) == "n1"


async def test_without_it_the_certificate_has_to_name_the_address(serving, tmp_path):
    shared = identity(Authority(tmp_path), None, NAME)
    with pytest.raises(grpc.aio.AioRpcError):
        await ask(shared, await serving(shared))


async def test_another_name_or_another_authority_is_not_believed(serving, tmp_path):
    authority = Authority(tmp_path)
    ours = identity(authority, NAME, NAME)
    (tmp_path / "other").mkdir()
    stranger = identity(Authority(tmp_path / "other"), NAME, NAME)
    for theirs in (identity(authority, NAME, "else.where"), stranger):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(ours, await serving(theirs))
