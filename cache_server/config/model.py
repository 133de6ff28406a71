"""The server's configuration, as frozen values. The texts under the fields are its documentation.

A `ServerConfig` that exists is consistent: each field is valid by itself, and the fields agree with each
other (`conflicts`). Defaults that depend on the machine (paths) are filled in by `source.load`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from cache_server.config.fields import (
    BlockBytes,
    Bytes,
    Capacity,
    Directory,
    Endpoint,
    Listen,
    MemoryBytes,
    Mode,
    OptionalListen,
    Path,
    Prefix,
    Price,
    Seconds,
    Section,
    ShardBytes,
    Share,
    Slots,
    SocketPath,
    Text,
    Uid,
    keyed,
)
from cache_server.config.units import Amount, HostPort, format_size
from hotshard.core.slots import REPLICAS_MAX, SLOTS_DEFAULT, WEIGHT_DEFAULT, WEIGHT_MAX


class OriginConfig(Section):
    """Where the truth is. Nothing is served that does not lie below one of these.

    Prefixes may be nested; the longest one that fits an address counts. An origin that needs no other
    keys may be written as its prefix alone.
    """

    prefix: Prefix
    """What it serves: `s3://bucket/`, `s3://bucket/train/` or `file:///fsx/`. A final `/` is added."""
    metadata_ttl_s: float = Field(default=60, ge=0, le=31_536_000)
    """For how long the size and version of an object are believed without asking the origin again."""
    immutable: bool = False
    """Objects never change: once known, they are never asked for again."""
    strict: bool = False
    """Ask the origin at every open, whatever the time to live says."""
    endpoint_url: Endpoint = None
    """S3 only. Where the service is, if not at AWS: `http://127.0.0.1:8333`."""
    region: Text | None = None
    """S3 only. Default: from the AWS configuration."""
    profile: Text | None = None
    """S3 only. A profile of the AWS configuration. Default: the standard credential chain."""
    anonymous: bool = False
    """S3 only. Send unsigned requests, for public buckets."""
    addressing: Literal["auto", "path", "virtual"] = "auto"
    """S3 only. Whether the bucket stands in the path or in the host name."""
    requester_pays: bool = False
    """S3 only. Agree to pay for requests and traffic of requester-pays buckets."""

    @model_validator(mode="after")
    def _agrees(self) -> "OriginConfig":
        if self.immutable and self.strict:
            raise ValueError("immutable and strict exclude each other; should be one of them")
        if self.anonymous and self.profile is not None:
            raise ValueError("anonymous and profile exclude each other; should be one of them")
        if self.prefix.startswith("file:"):
            given = sorted(self.model_fields_set & _S3_ONLY)
            if given:
                raise ValueError(f"{', '.join(given)}: for s3:// origins only")
        return self


_S3_ONLY = {"endpoint_url", "region", "profile", "anonymous", "addressing", "requester_pays"}


class CacheDirConfig(Section):
    """A directory for cached data, usually one per NVMe disk.

    One that keeps its default capacity may be written as its path alone.
    """

    path: Directory
    """Created if it is not there."""
    capacity_bytes: Capacity = Amount(share=0.8)
    """How much may be kept there: a size, or a share of the whole file system."""


class TlsConfig(Section):
    """Files of the gRPC server's identity, in PEM form."""

    certificate: Directory
    """The server's certificate chain."""
    key: Directory
    """Its private key."""
    client_ca: Directory | None = None
    """If set, clients have to show a certificate that one of these authorities has signed (mTLS)."""


class GrpcTlsConfig(TlsConfig):
    """Files of the gRPC server's identity, in PEM form.

    Without it the service is plain text, for loopback and trusted networks only. Other members are
    believed if their certificate is signed by `client_ca`, too.
    """

    server_name: Text | None = None
    """The name that members ask each other's certificates for. Default: the host at which a member is
    reached, so its certificate has to name its address."""


class GrpcConfig(Section):
    """The gRPC service, for remote clients, the command line and operators."""

    listen: Listen = HostPort("127.0.0.1", 7070)
    """Where to listen. Port 0 lets the kernel choose."""
    tls: GrpcTlsConfig | None = None
    """Without it the service is plain text, for loopback and trusted networks only."""
    advertise: Text | None = None
    """The host name or IP address under which other members reach this node, for all its ports. Default:
    the host of `listen`, or what the machine's name resolves to if that is all addresses."""


class ClusterConfig(Section):
    """The other nodes that this one shares its cache with.

    Members that find each other become one cache: each block is read from the origin by one of them, its
    owner, and the others get it from there. They have to agree on `name`, `slots`, `replicas` and
    `shard_bytes`; who does not is not taken in.
    """

    provider: Literal["none", "static", "dns", "kubernetes"] = "none"
    """Who says where the members are. `none`: this node is on its own."""
    name: Annotated[str, Field(min_length=1, max_length=100)] = "hotshard"
    """Tells clusters apart that could reach each other."""
    members: tuple[Listen, ...] = ()
    """`static` only. The addresses of all members' gRPC services; this node's own may be among them."""
    service: Text | None = None
    """`dns`: the name that all members' addresses are behind. `kubernetes`: the name of the service."""
    port: int = Field(default=7070, ge=1, le=65535)
    """`dns`: the port of the members' gRPC services. `kubernetes`: the same, if the service names none."""
    port_name: Text = "grpc"
    """`kubernetes` only. How the service calls the port of gRPC."""
    namespace: Text | None = None
    """`kubernetes` only. Where the service is. Default: where this pod is."""
    refresh_s: Annotated[float, Field(ge=0.1, le=3600)] = 10
    """`dns` only. How often to ask."""
    zone: str = ""
    """Members of other zones are not asked for data. Default: as Kubernetes says, else none."""
    weight: int = Field(default=WEIGHT_DEFAULT, ge=1, le=WEIGHT_MAX)
    """This node's share of what is cached, relative to the others'."""
    slots: Slots = SLOTS_DEFAULT
    """Into how many parts the cache is divided among the members: a power of two, at least 600 for each
    member. Changing it moves nearly everything."""
    replicas: int = Field(default=2, ge=1, le=REPLICAS_MAX)
    """How many members are responsible for a part, one after the other: the next one acts when the first
    is away."""
    grace_s: float = Field(default=600, ge=0, le=86400)
    """For how long a member that is away keeps its part, because it may come back with its data."""
    start_wait_s: float = Field(default=10, ge=0, le=600)
    """How long a starting node waits to have met the others before it is ready."""
    offer_bytes: Bytes = 64 << 30
    """How much of what was used last a node that stops offers to those who own it from then on, within half
    of `shutdown_grace_s`. 0: nothing."""

    @model_validator(mode="after")
    def _agrees(self) -> "ClusterConfig":
        if self.provider == "static" and not self.members:
            raise ValueError("static needs members; should be a list of HOST:PORT")
        if self.provider in ("dns", "kubernetes") and self.service is None:
            raise ValueError(f"{self.provider} needs service; should be its name")
        return self


class BulkConfig(Section):
    """The bulk port: byte ranges of shards, for other members of the cluster and for remote clients."""

    listen: OptionalListen = None
    """Where to listen. Default: in a cluster port 7071 of the host of `grpc.listen`; else nowhere."""
    connections: int = Field(default=4, ge=1, le=64)
    """Requests in flight to one member at one time, each on a connection of its own."""
    secret_file: Directory | None = None
    """A file with the secret that all members share. If set, the bulk port answers only requests with a
    ticket made from it."""
    tls: TlsConfig | None = None
    """Without it bytes travel in plain text, for trusted networks, and at a quarter of the cost."""


class AdminConfig(Section):
    """Plain HTTP: `/metrics`, `/healthz`, `/readyz` and `/status`. It has no access control."""

    listen: Listen = HostPort("127.0.0.1", 7072)
    """Where to listen. Port 0 lets the kernel choose."""


class LocalSocketConfig(Section):
    """The Unix socket for processes on this node, which receive open files over it."""

    path: SocketPath
    """Its directory is created if it is not there."""
    mode: Mode = 0o666
    """Permissions of the socket: who may connect."""
    allowed_uids: tuple[Uid, ...] | None = None
    """If set, only processes of these users are served; the kernel says who they are."""


class FetchConfig(Section):
    """How the origins are asked."""

    concurrency: int = Field(default=32, ge=1, le=1024)
    """Requests in flight at one time, over all origins."""
    attempts: int = Field(default=5, ge=1, le=20)
    """Tries of one request, the first included."""
    connect_timeout_s: Seconds = 5
    """For one connection to be made."""
    read_timeout_s: Seconds = 20
    """For the next bytes to arrive."""
    prefetch_share: float = Field(default=0.5, gt=0, le=1)
    """The part of `concurrency` that prefetch may hold; the rest is kept for readers who wait."""


class LogConfig(Section):
    """What is written to the standard error stream."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important messages to write."""
    format: Literal["text", "json"] = "text"
    """One line for people, or one JSON object, per event."""
    slow_request_s: Annotated[float, Field(gt=0, le=86400)] = 5.0
    """Requests that take longer get a line, which says what they waited for. All lines of one request carry
    its id, on every node that it reaches."""


class TracingConfig(Section):
    """OpenTelemetry traces of requests across nodes. Needs `pip install 'hotshard[otel]'`."""

    endpoint: Endpoint = None
    """Where spans go, over OTLP/HTTP: `http://collector:4318/v1/traces`. Without it nothing is traced, and
    it costs nothing."""
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01
    """The part of the requests that is traced; all nodes choose the same ones."""


class PricesConfig(Section):
    """What the requests and bytes that the cache saves are worth: for the figures of money alone.

    The defaults are the public list prices of S3 Standard in us-east-1 as they were in 2025: nothing for
    bytes from S3 to EC2 within a region, and one cent per GB and direction between availability zones. Set
    them to what you pay. Origins that are no S3 have no prices.
    """

    get_usd_per_1000: Price = 0.0004
    """1,000 GET requests."""
    head_usd_per_1000: Price = 0.0004
    """1,000 HEAD requests."""
    list_usd_per_1000: Price = 0.005
    """1,000 LIST requests."""
    origin_usd_per_gb: Price = 0.0
    """A gigabyte (10^9 bytes) from the origin: what a NAT gateway, another region or a storage class with
    retrieval fees costs."""
    cross_zone_usd_per_gb: Price = 0.02
    """A gigabyte between members of different zones, both directions of it together."""


class ServerConfig(Section):
    """Everything the server can be told."""

    origins: tuple[Annotated[OriginConfig, keyed("prefix")], ...] = ()
    """With none of them the server runs, and refuses every object."""
    cache_dirs: tuple[Annotated[CacheDirConfig, keyed("path")], ...] = Field(min_length=1)
    """Data is spread over all of them by capacity; one that fails is left out, and the rest go on."""
    shard_bytes: ShardBytes = 256 << 20
    """Objects are cut into shards: the unit of storage and of eviction. A multiple of `block_bytes`."""
    block_bytes: BlockBytes = 8 << 20
    """Shards are filled in blocks: the size of one request to the origin."""
    free_space_floor: Share = Amount(share=0.16)
    """What is left free on each file system, whatever else fills it; below it nothing new is kept. The
    default stays clear of the 15% at which the kubelet begins to evict pods."""
    memory_bytes: MemoryBytes = None
    """The budget for everything in flight. `auto`: 60% of the memory limit of the server's control group,
    or 25% of the machine's memory if there is no limit; at least 128MiB and at most 4GiB."""
    dataset_idle_s: Seconds = 300
    """A dataset (the first directory below an origin) that nobody has read for so long gives way to those
    that are read."""
    metadata_entries: int = Field(default=500_000, ge=1_000, le=100_000_000)
    """How many objects' sizes and versions are remembered, at about 0.6 KiB of memory each."""
    shutdown_grace_s: float = Field(default=20, ge=0, le=3600)
    """How long a stopping node may take to hand over what is in use and to finish requests in flight."""
    grpc: GrpcConfig = GrpcConfig()
    bulk: BulkConfig = BulkConfig()
    cluster: ClusterConfig = ClusterConfig()
    admin: AdminConfig = AdminConfig()
    local_socket: LocalSocketConfig
    fetch: FetchConfig = FetchConfig()
    log: LogConfig = LogConfig()
    prices: PricesConfig = PricesConfig()
    tracing: TracingConfig = TracingConfig()

    @model_validator(mode="after")
    def _agrees(self) -> "ServerConfig":
        found = list(conflicts(self))
        if found:
            raise ConflictError(found)
        return self


@dataclass(frozen=True, slots=True)
class Conflict:
    """Values that are valid each, but not together."""

    paths: tuple[Path, ...]
    """The first one is where it is reported."""
    message: str


class ConflictError(ValueError):
    """All conflicts of one configuration."""

    def __init__(self, found: list[Conflict]) -> None:
        super().__init__("; ".join(conflict.message for conflict in found))
        self.found = found


def conflicts(config: ServerConfig) -> Iterator[Conflict]:
    """Everything that does not fit together."""
    if config.shard_bytes % config.block_bytes:
        shard, block = format_size(config.shard_bytes), format_size(config.block_bytes)
        message = f"{shard} should be a multiple of block_bytes ({block})"
        yield Conflict((("shard_bytes",), ("block_bytes",)), message)
    if config.memory_bytes is not None and config.memory_bytes < config.block_bytes:
        message = (
            f"should hold at least one block (block_bytes is {format_size(config.block_bytes)})"
        )
        yield Conflict((("memory_bytes",), ("block_bytes",)), message)
    if config.grpc.listen.collides(config.admin.listen):
        message = f"{config.admin.listen} is taken by grpc.listen ({config.grpc.listen})"
        yield Conflict((("admin", "listen"), ("grpc", "listen")), message)
    yield from _origin_conflicts(config.origins)
    yield from _directory_conflicts(config)


def _origin_conflicts(origins: Sequence[OriginConfig]) -> Iterator[Conflict]:
    seen: dict[str, int] = {}
    for index, origin in enumerate(origins):
        first = seen.setdefault(origin.prefix, index)
        if first != index:
            paths = (("origins", index, "prefix"), ("origins", first, "prefix"))
            yield Conflict(paths, f"{origin.prefix} is origins.{first} already")


def _directory_conflicts(config: ServerConfig) -> Iterator[Conflict]:
    paths = [f"{directory.path.rstrip('/')}/" for directory in config.cache_dirs]
    for index, path in enumerate(paths):
        where: Path = ("cache_dirs", index, "path")
        for other, earlier in enumerate(paths[:index]):
            if _overlap(path, earlier):
                message = f"{path} is, or lies in, or holds cache_dirs.{other} ({earlier})"
                yield Conflict((where, ("cache_dirs", other, "path")), message)
        for other, origin in enumerate(config.origins):
            tree = origin.prefix.removeprefix("file://")
            if tree.startswith("/") and _overlap(path, tree):
                message = f"{path} overlaps origins.{other} ({origin.prefix}); should be elsewhere"
                yield Conflict((where, ("origins", other, "prefix")), message)


def _overlap(path: str, other: str) -> bool:
    return path.startswith(other) or other.startswith(path)
