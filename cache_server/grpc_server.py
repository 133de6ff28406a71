"""The gRPC server around the service: address, TLS, limits, health, reflection.

Health says NOT_SERVING until the node is ready, and again while it drains. The port is ours alone:
without `so_reuseport` off, a second server would bind it as well and take half of the calls.
"""

import asyncio
import ssl
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cache_server.config import GrpcConfig, TlsConfig
from hotshard.core.errors import ConfigError
from hotshard.v1 import cache_pb2, cache_pb2_grpc

RPCS_MAX = 1024
"""Calls under way at one time, over all connections."""
RECEIVE_BYTES_MAX = 8 << 20
"""1,000 uris of 4 KiB, and room."""
SEND_BYTES_MAX = 16 << 20
"""A page of 1,000 objects with paths of 4 KiB, and room."""

_PEM_BYTES_MAX = 1 << 20
_SERVICE = cache_pb2.DESCRIPTOR.services_by_name["Cache"].full_name
_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 256),
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", SEND_BYTES_MAX),
    # Find out within 80 s that a silent client is gone; let clients find out about us likewise.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


class GrpcServer:
    """One listening gRPC server."""

    def __init__(self, config: GrpcConfig, service: cache_pb2_grpc.CacheServicer) -> None:
        self._config = config
        self._service = service
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """The port it listens on, once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be bound, or the TLS files cannot be used.
        """
        tls = self._config.tls
        credentials = await asyncio.to_thread(_credentials, tls) if tls is not None else None
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=RPCS_MAX)
        cache_pb2_grpc.add_CacheServicer_to_server(self._service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        await self.set_ready(ready=False)
        address = str(self._config.listen)
        try:
            if credentials is None:
                self.port = server.add_insecure_port(address)
            else:
                self.port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            problem = f"grpc.listen: cannot listen on {address}: in use, or not an address of ours"
            raise ConfigError([problem]) from error
        await server.start()
        self._server = server

    async def set_ready(self, *, ready: bool) -> None:
        """Tell those who ask the health service."""
        serving = health_pb2.HealthCheckResponse.SERVING
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", _SERVICE):
            await self._health.set(name, serving if ready else not_serving)

    async def close(self, grace_s: float) -> None:
        """Be unready, take no new calls, give those under way time to finish; idempotent."""
        await self._health.enter_graceful_shutdown()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)


def _credentials(tls: TlsConfig) -> grpc.ServerCredentials:
    files = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca}
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    for key, path in files.items():
        if path is None:
            continue
        try:
            with open(path, "rb") as file:
                contents[key] = file.read(_PEM_BYTES_MAX)
        except OSError as error:
            problems.append(f"grpc.tls.{key}: {path} cannot be read: {error.strerror}")
    if not problems:
        problems = _tls_problems(tls)
    if problems:
        raise ConfigError(problems)
    return grpc.ssl_server_credentials(
        [(contents["key"], contents["certificate"])],
        root_certificates=contents.get("client_ca"),
        require_client_auth=tls.client_ca is not None,
    )


def _tls_problems(tls: TlsConfig) -> list[str]:
    """What is wrong with the contents. gRPC itself would only write to stderr, and fail to bind."""
    problems = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password keeps an encrypted key from asking for one on the terminal.
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, ValueError) as error:
        problems.append(
            f"grpc.tls.key: {tls.key} does not go with {tls.certificate}; both should be in PEM form,"
            f" the key not encrypted ({getattr(error, 'reason', None) or error})"
        )
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except ssl.SSLError as error:
            problems.append(
                f"grpc.tls.client_ca: {tls.client_ca} should hold certificates in PEM form"
                f" ({error.reason})"
            )
    return problems
