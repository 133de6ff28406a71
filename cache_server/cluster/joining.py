"""From the configuration to a membership."""

import os
import random
import secrets
import socket
from collections.abc import Callable

from cache_server.cluster.channels import Credentials
from cache_server.cluster.meeting import GrpcMeeter
from cache_server.cluster.membership import Membership, Tools
from cache_server.cluster.providers.dns import DnsProvider
from cache_server.cluster.providers.kubernetes import KubernetesOptions, KubernetesProvider
from cache_server.cluster.providers.provider import Provider
from cache_server.cluster.providers.static import StaticProvider
from cache_server.config import ClusterConfig, HostPort, ServerConfig
from cache_server.metrics.members import MemberMetrics
from hotshard.core.members import Member, Terms
from hotshard.core.roster import Roster

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound


def membership(
    config: ServerConfig,
    node_id: str,
    events: MemberMetrics,
    credentials: Credentials | None,
) -> Membership | None:
    """This node's membership; None: it is on its own.

    Raises:
        ConfigError: the provider does not work here.
    """
    cluster = config.cluster
    provider = _provider(cluster)
    if provider is None:
        return None
    me = Member(
        node_id,
        grpc="",  # not known before the port is open
        zone=cluster.zone,
        weight=cluster.weight,
        instance=secrets.randbits(64),
    )
    terms = Terms(cluster.name, cluster.slots, cluster.replicas, config.shard_bytes)
    tools = Tools(provider, GrpcMeeter(credentials), events, _random_unit())
    return Membership(Roster(me, terms, grace_s=cluster.grace_s), tools)


def address_of_grpc(config: ServerConfig, port: int) -> str:
    """Where members reach our gRPC service, as far as we know."""
    listen = config.grpc.listen.host
    host = config.grpc.advertise or (socket.gethostname() if listen in WILDCARDS else listen)
    return str(HostPort(host, port))


def address_of_bulk(config: ServerConfig, port: int) -> str:
    """Where they reach our bulk port: at the host where they found us, if it listens everywhere."""
    listen = config.bulk.listen or config.grpc.listen
    return f":{port}" if listen.host in WILDCARDS else str(HostPort(listen.host, port))


def _provider(cluster: ClusterConfig) -> Provider | None:
    service = cluster.service or ""
    match cluster.provider:
        case "none":
            return None
        case "static":
            return StaticProvider([str(address) for address in cluster.members])
        case "dns":
            return DnsProvider(service, cluster.port, cluster.refresh_s)
        case "kubernetes":
            options = KubernetesOptions(
                service=service,
                namespace=cluster.namespace or "",
                port_name=cluster.port_name,
                port=cluster.port,
            )
            return KubernetesProvider(options, os.environ, _random_unit())


def _random_unit() -> Callable[[], float]:
    return random.Random().random  # noqa: S311 - for jitter
