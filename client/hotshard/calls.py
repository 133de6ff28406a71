"""What a client can ask of a server, and what comes back: plain values, the same on every transport.

A call names its reply in its docstring. The transports turn calls into messages and messages into
replies; nothing above them sees protobuf, a socket or gRPC. `Open`, `OpenMany` and `Touch` exist only
where open files can be passed (the local socket), `Fetch` only where they cannot (gRPC).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


@dataclass(frozen=True, slots=True)
class Stat:
    """Reply: ObjectInfo."""

    uri: str


@dataclass(frozen=True, slots=True)
class StatMany:
    """Reply: list[ObjectInfo | HotshardError], in the order asked."""

    uris: Sequence[str]


@dataclass(frozen=True, slots=True)
class ListPage:
    """Reply: Page."""

    prefix: str
    recursive: bool
    token: str
    page_size: int


@dataclass(frozen=True, slots=True)
class Open:
    """Reply: Opened, once the range is present. `length` 0 asks for the description alone."""

    uri: str
    version: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class OpenMany:
    """Reply: list[Opened | HotshardError], in the order asked."""

    opens: Sequence[Open]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Reply: Fetched. `length` must not be 0; with a `view` the bytes go there."""

    uri: str
    version: str
    offset: int
    length: int
    view: memoryview | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Reply: the job's id."""

    uris: Sequence[str]


@dataclass(frozen=True, slots=True)
class WarmStatus:
    """Reply: WarmProgress, at the next change or after `wait_s`."""

    job_id: str
    wait_s: float


@dataclass(frozen=True, slots=True)
class Status:
    """Reply: ServerStatus."""


@dataclass(frozen=True, slots=True)
class Touch:
    """Has no reply: read again under a lease, which the eviction policy should know."""

    uris: Sequence[str]


Call = Stat | StatMany | ListPage | Open | OpenMany | Fetch | Prefetch | WarmStatus | Status


class Piece:
    """[start, stop) of an object lies in `file`, `delta` further on. Never changes."""

    __slots__ = ("delta", "file", "sealed", "start", "stop")

    def __init__(self, start: int, stop: int, file: OpenFile, delta: int, *, sealed: bool) -> None:
        self.start = start
        self.stop = stop
        self.file = file
        self.delta = delta
        self.sealed = sealed


class Opened:
    """What the server says of one object, with the pieces of it that are there."""

    __slots__ = ("info", "lease_s", "pieces")

    def __init__(self, info: ObjectInfo, pieces: list[Piece], lease_s: float) -> None:
        self.info = info
        self.pieces = pieces
        self.lease_s = lease_s


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes that came over the network."""

    info: ObjectInfo
    data: bytes
    """Empty when they went into the caller's view."""
    count: int
    """How many bytes; fewer than asked only at the end of the object."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """A fold of a listing that is not recursive: what other stores call a directory."""

    uri: str
    """Ends in "/"."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing."""

    objects: list[ObjectInfo]
    prefixes: list[Prefix]
    next_token: str


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """Where a prefetch stands."""

    listing: bool = False
    """The plan still grows."""
    planned_objects: int = 0
    planned_bytes: int = 0
    resident_objects: int = 0
    resident_bytes: int = 0
    failed_objects: int = 0
    failed_bytes: int = 0
    failures: tuple[HotshardError, ...] = ()
    """The first 100."""
    done: bool = False

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is resident, and was still there at the end."""
        all_there = self.resident_objects == self.planned_objects
        return self.done and all_there and not self.failed_objects

    def plus(self, other: "WarmProgress") -> "WarmProgress":
        """Both jobs as one."""
        return WarmProgress(
            self.listing or other.listing,
            self.planned_objects + other.planned_objects,
            self.planned_bytes + other.planned_bytes,
            self.resident_objects + other.resident_objects,
            self.resident_bytes + other.resident_bytes,
            self.failed_objects + other.failed_objects,
            self.failed_bytes + other.failed_bytes,
            (self.failures + other.failures)[:100],
            self.done and other.done,
        )


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """One cache directory of the server."""

    path: str
    disk_id: str
    state: str
    """"ok" or "quarantined"."""
    detail: str
    capacity_bytes: int
    used_bytes: int
    sealed_shards: int
    partial_bytes: int


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """What is cached below one prefix."""

    name: str
    shards: int
    bytes: int
    state: str = ""
    """idle, caching, or streaming: not all of what is read is kept."""
    replica_bytes: int = 0
    """Of `bytes`, what another member owns."""
    streamed_bytes: int = 0
    """What was passed on without being kept, since the server started."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A server's membership in a cluster, by its own view."""

    name: str
    grpc: str
    """The server's address as members know it, host:port."""
    zone: str
    state: str
    """ "joining", "ready" or "draining"."""
    view_version: int
    """Equal on members that agree on who owns what."""
    members: Mapping[str, int] = field(default_factory=dict)
    """State -> how many, of all zones."""
    slots: int = 0
    slots_owned: int = 0
    """Of `slots`, by this server."""


@dataclass(frozen=True, slots=True)
class Money:
    """What a server saves, since its start; docs/OPERATIONS.md says how it is counted."""

    avoided_requests: Mapping[str, float] = field(default_factory=dict)
    """Verb -> how many the origins did not see."""
    avoided_bytes: float = 0.0
    cross_zone_bytes: float = 0.0
    direct_usd: float = 0.0
    """What the reads would have cost without a cache; a lower bound."""
    spent_usd: float = 0.0
    saved_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Totals:
    """Bytes since the start of a server."""

    at_s: float = 0.0
    """When this was so, since 1970."""
    hit_bytes: int = 0
    """Asked for and found sealed."""
    asked_bytes: int = 0
    peer_bytes: int = 0
    """Received from other members."""
    origin_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server in figures."""

    node_id: str
    version: str
    uptime_s: float
    ready: bool
    origins: list[str] = field(default_factory=list)
    disks: list[DiskStatus] = field(default_factory=list)
    datasets: list[DatasetStatus] = field(default_factory=list)
    counters: Mapping[str, float] = field(default_factory=dict)
    """Metric name (with labels) -> value."""
    cluster: ClusterStatus | None = None
    """None: it is on its own."""
    money: Money = field(default_factory=Money)
    totals: Totals = field(default_factory=Totals)
    fills_running: int = 0
