"""The metrics of a node in a cluster: what it asks of members, and what they ask of its bulk port.

Only bytes, latency and breakers have a series per member; they end when the member leaves.
"""

from collections import Counter as Counts
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hotshard.core.bulkwire import Status
from hotshard.core.errors import BY_CODE

PATHS = ("bulk", "grpc")
PEER_OUTCOMES = (
    *("ok", "cancelled", "open", "unreachable", "broken", "mismatch", "target"),
    *("not_cached", "wrong_cluster", "forged", "malformed"),
    *(name.lower() for name in BY_CODE),
)
FAILURES = {"unreachable", "broken", "mismatch", "wrong_cluster", "forged", "malformed"}
"""What speaks against a member; it counts as slow or dead."""
REFUSALS = ("malformed", "slow", "connections", "handshake", "internal")
AVERAGE_WEIGHT = 0.1
"""Of the newest request in the moving average."""
_BUCKETS_S = (0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0)


@dataclass(slots=True)
class PeerReport:
    """What this node finds of another member, since it is known."""

    id: str
    zone: str = ""
    latency_s: float = 0.0
    """A moving average over its requests that were answered."""
    requests: int = 0
    failures: int = 0
    left_alone: bool = False
    received_bytes: int = 0


class PeerMetrics:
    """Counts for `cluster.peers` and `cluster.bulk_server`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hotshard_{name}", text, labels, registry=registry)

        self._received = counter(
            "peer_received_bytes", "Payload received from members, checked.", "peer", "zone"
        )
        self._requests = counter(
            "peer_requests", "Requests to members, each try.", "path", "outcome"
        )
        self._seconds = Histogram(
            "hotshard_peer_request_duration_seconds",
            "Time of one try of a request to a member.",
            ["path"],
            registry=registry,
            buckets=_BUCKETS_S,
        )
        self._latency = Gauge(
            "hotshard_peer_latency_seconds",
            "Time of a request to a member, as a moving average.",
            ["peer"],
            registry=registry,
        )
        self._breakers = Gauge(
            "hotshard_peer_breaker_open",
            "1 while a member is left alone because it did not answer.",
            ["peer"],
            registry=registry,
        )
        self._hedges = counter(
            "peer_hedges", "Second members asked because the first took long.", "result"
        )
        self._exhausted = counter(
            "peers_exhausted", "Blocks of other members that had to come from the origin."
        )
        self._taken = counter(
            "offers_taken_bytes", "Shards taken over from members that were leaving."
        )
        self._served = counter("bulk_requests", "Requests answered on the bulk port.", "outcome")
        self._sent = counter("bulk_sent_bytes", "Payload sent over the bulk port.")
        self._refused = counter("bulk_refused", "Bulk connections cut off.", "reason")
        self._not_owned = counter(
            "served_not_owned", "Requests for what another member owns, answered all the same."
        )
        self._connections = Gauge(
            "hotshard_bulk_connections", "Connections to the bulk port.", registry=registry
        )
        self._reports: dict[str, PeerReport] = {}
        self._gone_bytes: Counts[str] = Counts()  # zone -> received from members that have left
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make every series whose labels are known, so that a rate sees its first event."""
        for path in PATHS:
            self._seconds.labels(path)
            for outcome in PEER_OUTCOMES:
                self._requests.labels(path, outcome)
        for status in Status:
            self._served.labels(status.name.lower())
        for reason in REFUSALS:
            self._refused.labels(reason)
        for result in ("won", "lost"):
            self._hedges.labels(result)

    # -- asking ------------------------------------------------------------------------------------

    def peer_request(self, peer: str, path: str, outcome: str, seconds: float) -> None:
        """A member was asked."""
        self._requests.labels(path, outcome).inc()
        self._seconds.labels(path).observe(seconds)
        report = self._report(peer)
        report.requests += 1
        if outcome == "ok":
            weight = AVERAGE_WEIGHT if report.latency_s else 1.0
            report.latency_s += weight * (seconds - report.latency_s)
            self._latency.labels(peer).set(report.latency_s)
        elif outcome in FAILURES:
            report.failures += 1

    def peer_received(self, peer: str, zone: str, size: int) -> None:
        """Payload came from a member, and was right."""
        self._received.labels(peer, zone).inc(size)
        report = self._report(peer)
        report.zone = zone
        report.received_bytes += size

    def reports(self) -> list[PeerReport]:
        """What is known of each member, and of all who have left, by zone, as one without an id."""
        gone = [PeerReport("", zone, received_bytes=n) for zone, n in self._gone_bytes.items()]
        return [*self._reports.values(), *gone]

    def _report(self, peer: str) -> PeerReport:
        report = self._reports.get(peer)
        if report is None:
            report = self._reports[peer] = PeerReport(peer)
        return report

    def offer_taken(self, size: int) -> None:
        """A shard was taken over from a member that is leaving."""
        self._taken.inc(size)

    def peer_hedged(self, *, won: bool) -> None:
        """A second member was asked."""
        self._hedges.labels("won" if won else "lost").inc()

    def peer_breaker(self, peer: str, *, is_open: bool) -> None:
        """A member's circuit breaker changed."""
        self._breakers.labels(peer).set(is_open)
        self._report(peer).left_alone = is_open

    def peer_gone(self, peer: str, zone: str) -> None:
        """A member has left: its series end."""
        report = self._reports.pop(peer, None)
        if report is not None:
            self._gone_bytes[zone] += report.received_bytes
        families = (
            (self._received, (peer, zone)),
            (self._breakers, (peer,)),
            (self._latency, (peer,)),
        )
        for family, labels in families:
            if labels in family._metrics:  # noqa: SLF001 - remove() of what is not there raises
                family.remove(*labels)

    def peers_exhausted(self) -> None:
        """The origin had to give what is another member's to fetch."""
        self._exhausted.inc()

    # -- being asked -------------------------------------------------------------------------------

    def bulk_served(self, outcome: str, size: int, *, not_owned: bool) -> None:
        """A request was answered."""
        self._served.labels(outcome).inc()
        self._sent.inc(size)
        if not_owned:
            self._not_owned.inc()

    def bulk_refused(self, reason: str) -> None:
        """A connection was cut off."""
        self._refused.labels(reason).inc()

    def bulk_connections(self, count: int) -> None:
        """So many are connected now."""
        self._connections.set(count)
