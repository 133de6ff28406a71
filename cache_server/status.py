"""The node's status, for the gRPC service, the local socket, its page and the metrics: one report."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cache_server.cache import Cache
from cache_server.core.money import VERBS, Ledger, Prices
from cache_server.history import History, Sample
from cache_server.metrics import Limit, Metrics, State
from cache_server.metrics.peers import PeerReport
from cache_server.replies import progress_to_pb
from cache_server.slots import FetchSlots
from cache_server.store.options import DatasetReport
from cache_server.store.store import Store
from cache_server.transient import Transient
from cache_server.warm import Warmer
from hotshard.v1 import types_pb2 as pb

FILLS_SHOWN = 20
JOBS_SHOWN = 10
PEERS_SHOWN = 32
URIS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """Who is asked."""

    cache: Cache
    store: Store
    slots: FetchSlots
    transient: Transient
    warmer: Warmer
    known_bytes: Mapping[str, int] = field(default_factory=dict)
    """Dataset -> how large it is, as far as is known."""
    prices: Prices = field(default_factory=Prices)
    peers: Callable[[], Sequence[PeerReport]] = tuple
    """What this node finds of other members; in a cluster."""
    limits: Callable[[], Mapping[str, Limit]] = dict
    """How each origin is paced."""


class Statuses:
    """Puts together what the parts say of themselves. Use from the event loop only."""

    def __init__(self, parts: Parts, metrics: Metrics, version: str) -> None:
        self._parts = parts
        self._metrics = metrics
        self._version = version
        self._started_s = time.monotonic()
        self._history = History()
        self.unready = "starting"
        """Why the node should get no requests now; empty: it should. Broken disks are no reason: the
        node then serves from memory and the origin."""
        self.cluster: Callable[[], pb.ClusterStatus | None] = _alone
        """What is said of the cluster."""
        metrics.watch(self.state)

    def state(self) -> State:
        """What the gauges show."""
        return State(
            disks=self._parts.store.disks(),
            datasets=self._parts.store.datasets(),
            slots=self._parts.slots.counts(),
            memory_used_bytes=self._parts.transient.used_bytes,
            memory_limit_bytes=self._parts.transient.budget_bytes,
            warm_jobs=self._parts.warmer.running,
            fills_running=len(self._parts.cache.fills),
            limits=self._parts.limits(),
            ledger=self.ledger(),
            ready=not self.unready,
        )

    def ledger(self) -> Ledger:
        """What was asked of the origins that cost money, and what would have been without us."""
        priced = [prefix for prefix in self._parts.cache.origins if prefix.startswith("s3:")]
        spent = self._metrics.spent(priced)
        return Ledger(
            direct=self._metrics.reads.direct(priced),
            spent=replace(spent, cross_zone_bytes=self._cross_zone_bytes()),
            prices=self._parts.prices,
        )

    def remember(self) -> None:
        """Take a sample for the history."""
        self._history.add(self._sample())

    def status(self, *, brief: bool = False) -> pb.StatusReply:
        """The full report; `brief`: without the counters."""
        running = len(self._parts.cache.fills)
        return pb.StatusReply(
            node_id=self._parts.store.node_id,
            version=self._version,
            uptime_s=time.monotonic() - self._started_s,
            ready=not self.unready,
            origins=self._parts.cache.origins,
            disks=self._disks(),
            datasets=[
                _dataset_to_pb(each, self._parts.known_bytes.get(each.name, 0))
                for each in self._parts.store.datasets()
            ],
            counters={} if brief else self._metrics.snapshot(),
            cluster=self.cluster(),
            money=money_to_pb(self.ledger()),
            history=[_sample_to_pb(each) for each in self._history.until(self._sample())],
            peers=[_peer_to_pb(each) for each in self._peers()],
            fills=self._fills() if running else [],
            fills_running=running,
            jobs=[
                pb.JobStatus(
                    id=state.job_id, uris=uris[:URIS_SHOWN], progress=progress_to_pb(state)
                )
                for state, uris in self._parts.warmer.jobs()[:JOBS_SHOWN]
            ],
        )

    def _disks(self) -> list[pb.DiskStatus]:
        return [
            pb.DiskStatus(
                path=disk.path,
                disk_id=disk.disk_id,
                state=disk.state,
                detail=disk.reason,
                capacity_bytes=disk.capacity_bytes,
                used_bytes=disk.used_bytes,
                sealed_shards=disk.shards,
                partial_bytes=disk.partial_bytes,
            )
            for disk in self._parts.store.disks()
        ]

    def _fills(self) -> list[pb.FillStatus]:
        """Those that have taken longest, and something is fetched for."""
        now = self._parts.cache.fills.clock()
        busy = [fill for fill in self._parts.cache.fills if not fill.idle and not fill.closed]
        busy.sort(key=lambda fill: fill.began_s)
        return [
            pb.FillStatus(
                uri=fill.key.uri,
                shard=fill.key.index,
                size_bytes=fill.key.size,
                present_bytes=fill.present_bytes,
                age_s=now - fill.began_s,
            )
            for fill in busy[:FILLS_SHOWN]
        ]

    def _peers(self) -> list[PeerReport]:
        """Those that somebody should look at first."""
        found = [peer for peer in self._parts.peers() if peer.id]
        found.sort(key=lambda peer: (peer.left_alone, peer.latency_s), reverse=True)
        return found[:PEERS_SHOWN]

    def _sample(self) -> Sample:
        hit_bytes, asked_bytes = self._metrics.reads.asked_bytes()
        origin_bytes = self._metrics.spent(self._parts.cache.origins).origin_bytes
        peer_bytes = sum(peer.received_bytes for peer in self._parts.peers())
        return Sample(time.time(), hit_bytes, asked_bytes, peer_bytes, int(origin_bytes))

    def _cross_zone_bytes(self) -> int:
        cluster = self.cluster()
        if cluster is None:
            return 0
        peers = self._parts.peers()
        return sum(peer.received_bytes for peer in peers if peer.zone != cluster.me.zone)


def money_to_pb(ledger: Ledger) -> pb.Money:
    """What is saved, as a message."""
    return pb.Money(
        avoided_requests={verb: ledger.avoided(verb) for verb in VERBS},
        avoided_bytes=ledger.avoided_bytes,
        cross_zone_bytes=ledger.spent.cross_zone_bytes,
        direct_usd=ledger.direct_usd,
        spent_usd=ledger.spent_usd,
        saved_usd=ledger.saved_usd,
    )


def _dataset_to_pb(report: DatasetReport, known_bytes: int) -> pb.DatasetStatus:
    state = "streaming" if report.streaming else "caching" if report.active else "idle"
    return pb.DatasetStatus(
        name=report.name,
        shards=report.shards,
        bytes=report.bytes,
        replica_bytes=report.replica_bytes,
        state=state,
        streamed_shards=report.streamed_shards,
        streamed_bytes=report.streamed_bytes,
        known_bytes=known_bytes,
    )


def _sample_to_pb(sample: Sample) -> pb.Sample:
    return pb.Sample(
        at_s=sample.at_s,
        hit_bytes=sample.hit_bytes,
        asked_bytes=sample.asked_bytes,
        peer_bytes=sample.peer_bytes,
        origin_bytes=sample.origin_bytes,
    )


def _peer_to_pb(peer: PeerReport) -> pb.PeerStatus:
    return pb.PeerStatus(
        id=peer.id,
        zone=peer.zone,
        latency_s=peer.latency_s,
        requests=peer.requests,
        failures=peer.failures,
        left_alone=peer.left_alone,
        received_bytes=peer.received_bytes,
    )


def _alone() -> None:
    """A node without a cluster."""


def dataset_namer(prefixes: list[str]) -> Callable[[str], str]:
    """A function from an object's uri to its dataset: the origin's prefix and the next directory."""
    longest_first = sorted(prefixes, key=len, reverse=True)

    def dataset_of(uri: str) -> str:
        for prefix in longest_first:
            if uri.startswith(prefix):
                directory, slash, _ = uri[len(prefix) :].partition("/")
                return f"{prefix}{directory}/" if slash else prefix
        return ""

    return dataset_of
