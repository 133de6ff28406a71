"""When to ask a second member because the first one takes unusually long, within a budget.

Unusually long is longer than 99 of 100 of the last answers took. Each request puts a part of a token into
the bucket, each hedge takes one out: at most SHARE extra requests, and a burst of TOKENS_MAX.
Pure: times are arguments.
"""

from collections import deque

SHARE = 0.05
TOKENS_MAX = 10.0
KEPT = 200
LEAST = 20  # answers before a percentile means something
DELAY_S_MIN = 0.005


class Hedge:
    """For one kind of request."""

    __slots__ = ("_delay_s", "_seconds", "_since", "_tokens")

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._delay_s: float | None = None
        self._since = 0
        self._tokens = 0.0

    def asked(self) -> None:
        """A request was sent."""
        self._tokens = min(TOKENS_MAX, self._tokens + SHARE)

    def answered(self, seconds: float) -> None:
        """It took so long."""
        self._seconds.append(seconds)
        self._since += 1
        if self._since >= LEAST:
            self._since = 0
            ranked = sorted(self._seconds)
            self._delay_s = max(DELAY_S_MIN, ranked[int(len(ranked) * 0.99)])

    def delay_s(self) -> float | None:
        """For how long to wait for the first; None: not known yet."""
        return self._delay_s

    def try_spend(self) -> bool:
        """Take a token; False: the budget is used up."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
