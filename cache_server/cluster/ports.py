"""What this package asks of the rest: membership and metrics, as narrow as its parts need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """How a member is reached."""

    id: str
    grpc: str
    """host:port."""
    bulk: str
    """host:port; empty: it has no bulk port."""
    zone: str = ""


class Placement(Protocol):
    """Who owns what, by the view of this node."""

    @property
    def me(self) -> str:
        """The id of this node."""

    @property
    def view_version(self) -> int:
        """Of the view that answers."""

    def owners(self, digest: bytes) -> Sequence[PeerAddress]:
        """The members of our zone that own a slot, best first; those that are gone left out."""

    def previous_owners(self, digest: bytes) -> Sequence[PeerAddress]:
        """Who owned it before the last change, if that was not long ago and they still answer."""

    def suspect(self, id_: str) -> None:
        """A member's host was silent: look now whether it is still there."""


class PeerEvents(Protocol):
    """Who counts what happens between members (cache_server.metrics.peers)."""

    def peer_request(self, peer: str, path: str, outcome: str, seconds: float) -> None:
        """A member was asked, over "bulk" or "grpc"."""

    def peer_received(self, peer: str, zone: str, size: int) -> None:
        """Payload came from a member, and was right."""

    def peer_hedged(self, *, won: bool) -> None:
        """A second member was asked because the first took long."""

    def peer_breaker(self, peer: str, *, is_open: bool) -> None:
        """A member's circuit breaker changed."""

    def peer_gone(self, peer: str, zone: str) -> None:
        """A member has left."""

    def peers_exhausted(self) -> None:
        """No member could give a block that was not ours; it came from the origin."""
