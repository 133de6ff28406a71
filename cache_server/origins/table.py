"""Which origin serves an address, and how fresh what is known of it must be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cache_server.origins.origin import FirstOrigin, Origin, PeerBlocks, QuickOrigin
from hotshard.core.errors import PermissionDenied
from hotshard.core.uri import Address, parse

IMMUTABLE_LEASE_S = 3600.0


@dataclass(frozen=True, slots=True)
class Mounted:
    """An origin and the freshness its data needs."""

    origin: Origin
    metadata_ttl_s: float = 60.0
    """For how long a description is used without asking again."""
    immutable: bool = False
    """Objects never change: a description is good for ever."""
    strict: bool = False
    """Ask at every open."""
    source: Origin | None = None
    """In a cluster: the origin itself, where `origin` first asks the member that owns the answer."""
    peers: PeerBlocks | None = None
    """In a cluster: where blocks are asked for before the origin."""
    quick: QuickOrigin | None = None
    """The origin, if it can begin to fetch at once."""
    first: FirstOrigin | None = None
    """The origin, if it can describe and fetch at once. Not in a cluster, where one member is asked what an
    object is, and perhaps another one for its bytes."""

    def for_asker(self, *, forwarded: bool) -> Origin:
        """Whom to ask: a question that a member has passed on is not passed on again."""
        return self.source if forwarded and self.source is not None else self.origin

    @property
    def freshness_s(self) -> float:
        """Seconds for which an answer of the origin holds."""
        if self.immutable:
            return float("inf")
        return 0.0 if self.strict else self.metadata_ttl_s


class OriginTable:
    """The configured origins; the longest matching prefix wins."""

    def __init__(self, mounted: Iterable[Mounted]) -> None:
        self._mounted = sorted(mounted, key=lambda m: len(m.origin.prefix), reverse=True)

    def __iter__(self) -> Iterator[Mounted]:
        """All of them, longest prefix first."""
        return iter(self._mounted)

    @property
    def prefixes(self) -> list[str]:
        """The served prefixes, in order."""
        return sorted(m.origin.prefix for m in self._mounted)

    def covering(self, uri: str) -> Mounted | None:
        """The origin of an address in its normal form."""
        for mounted in self._mounted:
            if uri.startswith(mounted.origin.prefix):
                return mounted
        return None

    def of(self, uri: str) -> tuple[Mounted, Address]:
        """The origin of an address, and the address itself.

        Raises:
            InvalidRequest: not an address.
            PermissionDenied: no configured origin covers it.
        """
        address = parse(uri)
        normal = address.uri
        mounted = self.covering(normal)
        if mounted is not None:
            return mounted, address
        served = ", ".join(self.prefixes) or "none"
        raise PermissionDenied(
            f"{normal[:200]} is not below a configured origin (served: {served});"
            " add it under `origins` or start the server with --origin",
            uri=normal,
        )
