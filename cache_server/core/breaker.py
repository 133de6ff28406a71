"""A circuit breaker: leaves somebody who does not answer alone for a while, then tries with one request.

    closed --failures in a row--> open --rest over--> half open: one request --answered--> closed
                                    ^---------------------- failed -----------'

The rest doubles with each failed try. Pure: times are arguments, in seconds of any monotonic clock.
"""

FAILURES = 4
REST_S = 1.0
REST_S_MAX = 30.0


class Breaker:
    """For one peer, or one origin."""

    __slots__ = ("_failures", "_rest_s", "_trying", "_until_s", "state")

    def __init__(self) -> None:
        self.state = "closed"
        """ "closed", "open" or "half_open"."""
        self._failures = 0
        self._rest_s = REST_S
        self._until_s = 0.0
        self._trying = False

    def allows(self, now_s: float) -> bool:
        """Whether a request may be sent; one that is has to be reported."""
        if self.state == "closed":
            return True
        if self.state == "open" and now_s >= self._until_s:
            self.state = "half_open"
            self._trying = False
        if self.state == "half_open" and not self._trying:
            self._trying = True
            return True
        return False

    def succeeded(self, _now_s: float) -> None:
        """A request was answered."""
        self.state = "closed"
        self._failures = 0
        self._rest_s = REST_S
        self._trying = False

    def failed(self, now_s: float, weight: int = 1) -> None:
        """A request was not; counts as so many."""
        self._failures += weight
        if self.state == "half_open":
            self._rest_s = min(2 * self._rest_s, REST_S_MAX)
            self._open(now_s)
        elif self.state == "closed" and self._failures >= FAILURES:
            self._open(now_s)

    def cancelled(self, _now_s: float) -> None:
        """A request was given up before anything was known."""
        self._trying = False

    def _open(self, now_s: float) -> None:
        self.state = "open"
        self._until_s = now_s + self._rest_s
        self._trying = False
