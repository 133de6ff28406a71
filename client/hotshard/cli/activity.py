"""What the nodes of a cluster are doing: how each is, and how fast, from two looks. No terminal here."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hotshard.calls import ServerStatus, Totals
from hotshard.replies import status_from_pb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotshard.cli.session import Session


@dataclass(frozen=True, slots=True)
class Look:
    """One node, at one moment."""

    id: str
    address: str
    zone: str
    state: str
    status: ServerStatus | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Speed:
    """Bytes a second between two looks."""

    hit: float = 0.0
    asked: float = 0.0
    peer: float = 0.0
    origin: float = 0.0

    @property
    def hit_ratio(self) -> float | None:
        """None: nothing was asked for."""
        return min(1.0, self.hit / self.asked) if self.asked else None

    def plus(self, other: Speed) -> Speed:
        """Both together."""
        return Speed(
            self.hit + other.hit,
            self.asked + other.asked,
            self.peer + other.peer,
            self.origin + other.origin,
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One row."""

    look: Look
    speed: Speed = field(default_factory=Speed)


@dataclass(frozen=True, slots=True)
class Activity:
    """All nodes, and what they do together."""

    name: str
    nodes: Sequence[Node]

    @property
    def speed(self) -> Speed:
        """Of all."""
        total = Speed()
        for node in self.nodes:
            total = total.plus(node.speed)
        return total

    @property
    def said(self) -> list[ServerStatus]:
        """Of those who answer."""
        return [node.look.status for node in self.nodes if node.look.status is not None]

    @property
    def saved_usd(self) -> float:
        """Since the start of each node."""
        return sum(status.money.saved_usd for status in self.said)

    def datasets(self, most: int) -> list[tuple[str, int]]:
        """The largest ones: name, bytes cached on all nodes."""
        sizes: Counter[str] = Counter()
        for status in self.said:
            for dataset in status.datasets:
                sizes[dataset.name] += dataset.bytes
        return sizes.most_common(most)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "cluster": self.name,
            "hit_ratio": self.speed.hit_ratio,
            "bytes_per_s": asdict(self.speed),
            "saved_usd": self.saved_usd,
            "datasets": [{"name": n, "bytes": b} for n, b in self.datasets(20)],
            "nodes": [_node_document(node) for node in self.nodes],
        }


class Watch:
    """Looks again and again."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._before: dict[str, Totals] = {}

    def look(self) -> Activity:
        """How it is now, and how fast since the last look.

        Raises:
            HotshardError: the server that was named does not answer.
        """
        name, looks = self._looks()
        nodes = [Node(look, self._speed(look)) for look in looks]
        self._before = {look.id: look.status.totals for look in looks if look.status is not None}
        return Activity(name, nodes)

    def _looks(self) -> tuple[str, list[Look]]:
        from hotshard.cli import cluster

        with self._session.connect() as cache:
            found = cache.status()
        if found.cluster is None:
            state = "ready" if found.ready else "not ready"
            return "", [Look(found.node_id, "", "", state, found)]
        with self._session.operator(found.cluster.grpc) as operator:
            everybody = operator.members()
        return everybody.cluster, [
            Look(
                answer.member.id,
                answer.member.grpc,
                answer.member.zone,
                answer.member.state,
                None if answer.said is None else status_from_pb(answer.said),
                answer.error,
            )
            for answer in cluster.statuses(everybody)
        ]

    def _speed(self, look: Look) -> Speed:
        before = self._before.get(look.id)
        if before is None or look.status is None:
            return Speed()
        now = look.status.totals
        seconds = now.at_s - before.at_s
        if seconds <= 0 or now.asked_bytes < before.asked_bytes:  # it was started again
            return Speed()
        return Speed(
            (now.hit_bytes - before.hit_bytes) / seconds,
            (now.asked_bytes - before.asked_bytes) / seconds,
            (now.peer_bytes - before.peer_bytes) / seconds,
            (now.origin_bytes - before.origin_bytes) / seconds,
        )


def _node_document(node: Node) -> dict[str, Any]:
    look, status = node.look, node.look.status
    document: dict[str, Any] = {
        "id": look.id,
        "address": look.address,
        "zone": look.zone,
        "state": look.state,
        "reachable": status is not None,
    }
    if status is None:
        return document | {"error": look.error}
    return document | {
        "ready": status.ready,
        "uptime_s": status.uptime_s,
        "hit_ratio": node.speed.hit_ratio,
        "bytes_per_s": asdict(node.speed),
        "used_bytes": sum(disk.used_bytes for disk in status.disks),
        "capacity_bytes": sum(disk.capacity_bytes for disk in status.disks),
        "fills_running": status.fills_running,
        "saved_usd": status.money.saved_usd,
    }
