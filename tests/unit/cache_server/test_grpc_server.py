"""The gRPC server around the service."""

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cache_server.config import GrpcConfig, GrpcTlsConfig, HostPort
from cache_server.grpc_server import GrpcServer
from hotshard.core.errors import ConfigError
from hotshard.v1 import cache_pb2_grpc, types_pb2
from support.certificates import Authority
from support.waiting import LIMIT_S

ANY_PORT = HostPort("127.0.0.1", 0)
SERVICE = "hotshard.v1.Cache"


class Answering(cache_pb2_grpc.CacheServicer):
    """Knows one call; the others are not of interest here."""

    __abstractmethods__: frozenset[str] = frozenset()

    async def Status(self, request, context):
        return types_pb2.StatusReply(node_id="n1")


def answering() -> cache_pb2_grpc.CacheServicer:
    return Answering()  # type: ignore[abstract]


@pytest.fixture
async def started():
    servers = []

    async def start(**config):
        server = GrpcServer(GrpcConfig(**{"listen": ANY_PORT, **config}), answering())
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.close(0.0)


async def health(channel, service=""):
    stub = health_pb2_grpc.HealthStub(channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


async def test_health_follows_readiness(started):
    server = await started()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        for service in ("", SERVICE):
            assert await health(channel, service) == "NOT_SERVING"
        await server.set_ready(ready=True)
        for service in ("", SERVICE):
            assert await health(channel, service) == "SERVING"
        await server.set_ready(ready=False)
        assert await health(channel) == "NOT_SERVING"


async def test_reflection_names_the_services(started):
    server = await started()
    names: set[str] = set()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for reply in stub.ServerReflectionInfo(iter([request])):
            names |= {service.name for service in reply.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


async def test_a_port_in_use_is_a_mistake_of_the_configuration(started):
    first = await started()
    taken = HostPort("127.0.0.1", first.port)
    second = GrpcServer(GrpcConfig(listen=taken), answering())
    with pytest.raises(ConfigError) as caught:
        await second.start()
    (problem,) = caught.value.problems
    assert problem.startswith(f"grpc.listen: cannot listen on {taken}")
    await second.close(0.0)


async def test_an_address_that_is_not_ours(started):
    with pytest.raises(ConfigError, match=r"grpc\.listen: cannot listen on 192\.0\.2\.1:7070"):
        await started(listen=HostPort("192.0.2.1", 7070))


async def test_close_twice(started):
    server = await started()
    await server.close(0.0)
    await server.close(0.0)


# -- TLS -----------------------------------------------------------------------------------------


def channel_credentials(authority, identity=None):
    chain = key = None
    if identity is not None:
        chain, key = (Path(path).read_bytes() for path in identity)
    return grpc.ssl_channel_credentials(Path(authority.path).read_bytes(), key, chain)


async def node_id(server, credentials):
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.secure_channel(address, credentials) as channel:
        stub = cache_pb2_grpc.CacheStub(channel)
        reply = await stub.Status(types_pb2.StatusRequest(), timeout=LIMIT_S)
        return reply.node_id


async def test_tls(started, tmp_path):
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    server = await started(tls=GrpcTlsConfig(certificate=certificate, key=key))
    assert await node_id(server, channel_credentials(authority)) == "n1"
    with pytest.raises(grpc.aio.AioRpcError):
        await node_id(server, channel_credentials(Authority(tmp_path, "other")))


async def test_mtls_serves_only_those_with_a_certificate(started, tmp_path):
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    tls = GrpcTlsConfig(certificate=certificate, key=key, client_ca=authority.path)
    server = await started(tls=tls)
    assert await node_id(server, channel_credentials(authority, authority.issue("client"))) == "n1"
    stranger = Authority(tmp_path, "other").issue("stranger")
    for identity in (None, stranger):
        with pytest.raises(grpc.aio.AioRpcError):
            await node_id(server, channel_credentials(authority, identity))


async def test_all_tls_files_that_cannot_be_read_are_named(started, tmp_path):
    with pytest.raises(ConfigError) as caught:
        await started(tls=GrpcTlsConfig(certificate=str(tmp_path / "absent"), key=str(tmp_path)))
    assert [problem.rpartition(": ")[::2] for problem in caught.value.problems] == [
        (f"grpc.tls.certificate: {tmp_path}/absent cannot be read", "No such file or directory"),
        (f"grpc.tls.key: {tmp_path} cannot be read", "Is a directory"),
    ]


async def test_tls_files_that_make_no_sense_are_named(started, tmp_path):
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    _, other_key = authority.issue("other")
    junk = tmp_path / "junk"
    junk.write_text("hello")
    cases = [
        (certificate, other_key, None, ["grpc.tls.key"]),
        (certificate, str(junk), str(junk), ["grpc.tls.key", "grpc.tls.client_ca"]),
        (certificate, key, str(junk), ["grpc.tls.client_ca"]),
    ]
    for crt, private, ca, expected in cases:
        with pytest.raises(ConfigError) as caught:
            await started(tls=GrpcTlsConfig(certificate=crt, key=private, client_ca=ca))
        assert [problem.split(": ")[0] for problem in caught.value.problems] == expected
