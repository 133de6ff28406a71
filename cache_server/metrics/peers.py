"""The metrics of a node in a cluster: what it asks of members, and what they ask of its bulk port.

Only bytes, latency and breakers have a series per member; they end when the member leaves.
"""

from collections import Counter
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from cache_server.metrics.plain import Counts, Durations, Levels
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
        self._add_asking(registry)
        self._add_being_asked(registry)
        self._reports: dict[str, PeerReport] = {}
        self._gone_bytes: Counter[str] = Counter()  # zone -> received from members that have left

    def _add_asking(self, registry: CollectorRegistry) -> None:
        self._received = Counts(
            registry,
            "peer_received_bytes",
            "Payload received from members, checked.",
            ("peer", "zone"),
            (),
        )
        self._requests = Counts(
            registry,
            "peer_requests",
            "Requests to members, each try.",
            ("path", "outcome"),
            [(path, outcome) for path in PATHS for outcome in PEER_OUTCOMES],
        )
        self._seconds = Durations(
            registry,
            "peer_request_duration_seconds",
            "Time of one try of a request to a member.",
            _BUCKETS_S,
            ("path",),
            [(path,) for path in PATHS],
        )
        text = "Time of a request to a member, as a moving average."
        self._latency = Levels(registry, "peer_latency_seconds", text, ("peer",), ())
        text = "1 while a member is left alone because it did not answer."
        self._breakers = Levels(registry, "peer_breaker_open", text, ("peer",), ())
        text = "Second members asked because the first took long."
        self._hedges = Counts(registry, "peer_hedges", text, ("result",), (("won",), ("lost",)))
        text = "Blocks of other members that had to come from the origin."
        self._exhausted = Counts(registry, "peers_exhausted", text)
        text = "Shards taken over from members that were leaving."
        self._taken = Counts(registry, "offers_taken_bytes", text)

    def _add_being_asked(self, registry: CollectorRegistry) -> None:
        self._served = Counts(
            registry,
            "bulk_requests",
            "Requests answered on the bulk port.",
            ("outcome",),
            [(status.name.lower(),) for status in Status],
        )
        self._sent = Counts(registry, "bulk_sent_bytes", "Payload sent over the bulk port.")
        reasons = [(reason,) for reason in REFUSALS]
        text = "Bulk connections cut off."
        self._refused = Counts(registry, "bulk_refused", text, ("reason",), reasons)
        text = "Requests for what another member owns, answered all the same."
        self._not_owned = Counts(registry, "served_not_owned", text)
        text = "Connections to the bulk port."
        self._connections = Levels(registry, "bulk_connections", text)

    # -- asking ------------------------------------------------------------------------------------

    def peer_request(self, peer: str, path: str, outcome: str, seconds: float) -> None:
        """A member was asked."""
        self._requests.of[path, outcome] += 1
        self._seconds.observe((path,), seconds)
        report = self._report(peer)
        report.requests += 1
        if outcome == "ok":
            weight = AVERAGE_WEIGHT if report.latency_s else 1.0
            report.latency_s += weight * (seconds - report.latency_s)
            self._latency.of[peer,] = report.latency_s
        elif outcome in FAILURES:
            report.failures += 1

    def peer_received(self, peer: str, zone: str, size: int) -> None:
        """Payload came from a member, and was right."""
        received = self._received.of
        received[peer, zone] = received.get((peer, zone), 0) + size
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
        self._taken.of[()] += size

    def peer_hedged(self, *, won: bool) -> None:
        """A second member was asked."""
        self._hedges.of["won" if won else "lost",] += 1

    def peer_breaker(self, peer: str, *, is_open: bool) -> None:
        """A member's circuit breaker changed."""
        self._breakers.of[peer,] = is_open
        self._report(peer).left_alone = is_open

    def peer_gone(self, peer: str, zone: str) -> None:
        """A member has left: its series end."""
        report = self._reports.pop(peer, None)
        if report is not None:
            self._gone_bytes[zone] += report.received_bytes
        self._received.of.pop((peer, zone), None)
        self._breakers.of.pop((peer,), None)
        self._latency.of.pop((peer,), None)

    def peers_exhausted(self) -> None:
        """The origin had to give what is another member's to fetch."""
        self._exhausted.of[()] += 1

    # -- being asked -------------------------------------------------------------------------------

    def bulk_served(self, outcome: str, size: int, *, not_owned: bool) -> None:
        """A request was answered."""
        self._served.of[outcome,] += 1
        self._sent.of[()] += size
        if not_owned:
            self._not_owned.of[()] += 1

    def bulk_refused(self, reason: str) -> None:
        """A connection was cut off."""
        self._refused.of[reason,] += 1

    def bulk_connections(self, count: int) -> None:
        """So many are connected now."""
        self._connections.of[()] = count
