"""The parts of a node that make it a member: put together here, used by the composition root.

Nothing of this exists on a node without a cluster.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from cache_server.cache import Cache
from cache_server.cluster.blocks import ClusterBlocks
from cache_server.cluster.bulk_calls import BulkCalls, Identity, OnRead
from cache_server.cluster.bulk_client import BulkOptions
from cache_server.cluster.bulk_server import BulkServer
from cache_server.cluster.channels import read_credentials
from cache_server.cluster.grpc_peer import GrpcOptions
from cache_server.cluster.membership import Membership
from cache_server.cluster.offers import Leaving, Taking
from cache_server.cluster.origin import ClusterOrigin, GuardedOrigin
from cache_server.cluster.peers import CONNECTIONS, PeerOptions, Peers
from cache_server.cluster.ports import Placement
from cache_server.cluster.quick import GuardedQuick
from cache_server.config import GrpcTlsConfig, HostPort, TlsConfig
from cache_server.flight import Spawn
from cache_server.metrics.peers import PeerMetrics
from cache_server.origins.table import Mounted, OriginTable
from cache_server.requests import Requests
from cache_server.store.store import Store
from cache_server.tasks import Tasks
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Checksum
from hotshard.core.errors import ConfigError
from hotshard.core.members import State
from hotshard.core.objects import ObjectInfo

BULK_PORT = 7071


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a member is told."""

    name: str
    """Of the cluster."""
    secret: bytes = field(default=b"", repr=False)
    connections: int = CONNECTIONS
    bulk_tls: TlsConfig | None = None
    grpc_tls: GrpcTlsConfig | None = None


class ClusterNode:
    """This node's membership, as the rest of it uses it. Use from the event loop only."""

    def __init__(
        self,
        placement: Placement,
        settings: Settings,
        geometry: Geometry,
        events: PeerMetrics,
        spawn: Spawn,
    ) -> None:
        """Blocking: reads certificates.

        Raises:
            ConfigError: they cannot be used.
        """
        self._placement = placement
        self._settings = settings
        self._geometry = geometry
        self._spawn = spawn
        tls = settings.bulk_tls
        options = PeerOptions(
            bulk=BulkOptions(settings.name, settings.secret, _client_context(tls)),
            grpc=GrpcOptions(settings.name, read_credentials(settings.grpc_tls)),
            connections=settings.connections,
        )
        self.peers = Peers(placement, options, events)
        self._blocks = ClusterBlocks(placement, self.peers, geometry, events)

    def mounted(self, alone: Mounted) -> Mounted:
        """An origin as members read it.

        What is known of an object is at most half as old at its owner, and as much again with whoever
        asked the owner.
        """
        guarded = GuardedOrigin(alone.origin, self._spawn)
        shared = ClusterOrigin(alone.origin, guarded, self._placement, self.peers, self._blocks)
        return replace(
            alone,
            origin=shared,
            source=guarded,
            peers=self._blocks,
            quick=alone.quick and GuardedQuick(alone.quick, guarded),
            first=None,
            metadata_ttl_s=alone.metadata_ttl_s / 2,
        )

    def owns(self, digest: bytes) -> bool:
        """Whether a shard is this node's to fetch from the origin."""
        return self._blocks.is_ours(digest)

    @property
    def identity(self) -> Identity:
        """What the bulk port says of this node."""
        return Identity(
            cluster=self._settings.name,
            secret=self._settings.secret,
            shard_bytes=self._geometry.shard_bytes,
            owns=self._blocks.is_ours,
            view=lambda: self._placement.view_version,
        )


async def forget_who_left(found: Membership, peers: Peers) -> None:
    """Give up the connections to members that are gone."""
    async for view in found.views():
        await peers.retain({member.id: member.instance for member in view.members})


async def leave(
    found: Membership, peers: Peers, store: Store, size_max: int, limit_s: float
) -> None:
    """Be no owner any more, let the others know, and hand over what is in use; see offers.py."""
    await found.become(State.DRAINING)
    async for _ in found.views():
        pass  # until the view shows it
    if size_max:
        await Leaving(found, peers, store.used_last).offer(size_max, limit_s)


def taking(cache: Cache, events: PeerMetrics) -> Taking:
    """What takes over the shards of members that leave."""
    return Taking(cache.make_resident, cache.shard_keys, cache.is_sealed, events.offer_taken)


@dataclass(frozen=True, slots=True)
class BulkParts:
    """What answers on the bulk port."""

    cache: Cache
    table: OriginTable
    tasks: Tasks
    events: PeerMetrics
    requests: Requests
    on_read: OnRead


async def open_bulk(
    identity: Identity,
    listen: HostPort,
    tls: TlsConfig | None,
    parts: BulkParts,
) -> BulkServer:
    """Open the bulk port; the caller closes it.

    Raises:
        ConfigError: the address is not to be had, or the certificate is no good.
    """
    calls = BulkCalls(
        parts.cache, identity, _whole_from(parts.table), parts.requests, parts.on_read
    )
    context = await asyncio.to_thread(_server_context, tls)
    server = BulkServer(listen.host, listen.port, calls, parts.events, tls=context)
    await server.start()
    parts.tasks.spawn(server.run())
    return server


def read_secret(path: str | None) -> bytes:
    """The secret of the cluster; blocking.

    Raises:
        ConfigError: it cannot be read, or is too short to keep anybody out.
    """
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            secret = file.read(4096).strip()
    except OSError as error:
        raise ConfigError([f"bulk.secret_file: {path} cannot be read: {error.strerror}"]) from error
    if len(secret) < 16:
        raise ConfigError([f"bulk.secret_file: {path} should hold at least 16 characters"])
    return secret


def _whole_from(table: OriginTable) -> Callable[[ObjectInfo], Awaitable[Checksum | None]]:
    async def whole(info: ObjectInfo) -> Checksum | None:
        mounted, _ = table.of(info.uri)
        return await mounted.for_asker(forwarded=True).whole_checksum(info)

    return whole


def _server_context(tls: TlsConfig | None) -> ssl.SSLContext | None:
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, tls)
    if tls.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _client_context(tls: TlsConfig | None) -> ssl.SSLContext | None:
    """Members are known by their authority, not by their names: pods have neither for long."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if tls.client_ca is None:
        context.verify_mode = ssl.CERT_NONE
    _load(context, tls)
    return context


def _load(context: ssl.SSLContext, tls: TlsConfig) -> None:
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
    except (OSError, ValueError) as error:
        raise ConfigError([f"bulk.tls: {tls.certificate}, {tls.key}: {error}"]) from error
