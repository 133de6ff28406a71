"""What a cache saves, in units and in money. Pure.

Two sides of a ledger are kept: what the reads that were answered would have been to the origin without a
cache (`direct`), and what was asked of it in truth (`spent`). Both are counted requests and bytes; prices
only turn them into money. The difference may be negative: a cache that is being filled costs requests
before it saves any.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

VERBS = ("GET", "HEAD", "LIST")
_GB = 1e9  # prices are per decimal gigabyte


@dataclass(frozen=True, slots=True)
class Prices:
    """In US dollars; the keys of the configuration `prices`."""

    get_usd_per_1000: float = 0.0004
    head_usd_per_1000: float = 0.0004
    list_usd_per_1000: float = 0.005
    origin_usd_per_gb: float = 0.0
    cross_zone_usd_per_gb: float = 0.02

    def requests_usd(self, requests: Mapping[str, float]) -> float:
        """Of so many requests, by verb."""
        per_1000 = dict(
            zip(
                VERBS,
                (self.get_usd_per_1000, self.head_usd_per_1000, self.list_usd_per_1000),
                strict=True,
            )
        )
        return sum(per_1000[verb] * count / 1000 for verb, count in requests.items())


@dataclass(frozen=True, slots=True)
class Usage:
    """What was, or would have been, asked of priced origins."""

    requests: Mapping[str, float] = field(default_factory=dict)
    """Verb -> how many."""
    origin_bytes: float = 0.0
    cross_zone_bytes: float = 0.0

    def usd(self, prices: Prices) -> float:
        """What it costs."""
        return (
            prices.requests_usd(self.requests)
            + prices.origin_usd_per_gb * self.origin_bytes / _GB
            + prices.cross_zone_usd_per_gb * self.cross_zone_bytes / _GB
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """Both sides."""

    direct: Usage = field(default_factory=Usage)
    spent: Usage = field(default_factory=Usage)
    prices: Prices = field(default_factory=Prices)

    @property
    def direct_usd(self) -> float:
        """What the reads would have cost without a cache."""
        return self.direct.usd(self.prices)

    @property
    def spent_usd(self) -> float:
        """What they did cost."""
        return self.spent.usd(self.prices)

    @property
    def saved_usd(self) -> float:
        """The difference; below zero while the cache has cost more than it saved."""
        return self.direct_usd - self.spent_usd

    @property
    def avoided_bytes(self) -> float:
        """Bytes that the origin did not have to send."""
        return self.direct.origin_bytes - self.spent.origin_bytes

    def avoided(self, verb: str) -> float:
        """Requests that the origin did not see."""
        return self.direct.requests.get(verb, 0.0) - self.spent.requests.get(verb, 0.0)
