"""gRPC channels to other members: in plain text, or with this node's certificate.

Members are reached by addresses that no certificate names, pods at least; so with TLS they may agree on one
name, `grpc.tls.server_name`, that the certificates of all of them carry.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from cache_server.config import GrpcTlsConfig

Options = Sequence[tuple[str, int | str]]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How this node presents itself, and what name it expects."""

    channel: grpc.ChannelCredentials
    server_name: str | None = None
    """None: the host of the address."""


def read_credentials(tls: GrpcTlsConfig | None) -> Credentials | None:
    """This node's credentials towards the gRPC services of other members; blocking."""
    if tls is None:
        return None
    contents = []
    for path in (tls.client_ca, tls.key, tls.certificate):
        content = None
        if path is not None:
            with open(path, "rb") as file:
                content = file.read()
        contents.append(content)
    return Credentials(grpc.ssl_channel_credentials(*contents), tls.server_name)


def open_channel(
    address: str, credentials: Credentials | None, options: Options
) -> grpc.aio.Channel:
    """A channel to one address; it connects when it is used."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options)
    if credentials.server_name is not None:
        options = [*options, ("grpc.ssl_target_name_override", credentials.server_name)]
    return grpc.aio.secure_channel(address, credentials.channel, options)
