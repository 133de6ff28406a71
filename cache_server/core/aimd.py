"""How many requests an origin bears: one more for each round that goes well, half when it says "slow down".

Additive increase, multiplicative decrease, as TCP does it: many nodes that know nothing of each other end
up sharing what the origin gives. One crowd of refusals, all of requests sent at one time, halves once.
Pure: times are arguments, in seconds of any monotonic clock.
"""

HOLD_S = 1.0
"""After a decrease the next one is not before this."""


class Aimd:
    """A limit of requests in flight."""

    __slots__ = ("_held_until_s", "_limit", "_most")

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self._limit = self._most
        self._held_until_s = float("-inf")

    @property
    def limit(self) -> int:
        """How many may be in flight now; at least one."""
        return int(self._limit)

    def succeeded(self) -> None:
        """A request was answered as usual: `limit` of these make the limit one larger."""
        self._limit = min(self._most, self._limit + 1.0 / self._limit)

    def slowed_down(self, now_s: float) -> None:
        """The origin said that it is asked too much."""
        if now_s >= self._held_until_s:
            self._limit = max(1.0, self._limit / 2)
            self._held_until_s = now_s + HOLD_S
