"""How long an attempt at a member may take, by how long the last ones took.

An attempt has a usual limit that a healthy member never needs. On a machine that is short of processors or
whose disks are behind, everything takes long, and an attempt that is given up is made again elsewhere: at
the origin, in the end, while the owner fetches the same bytes. So the limit follows what attempts take:
MARGIN times as long as 9 of 10 of the last ones, never less than the usual limit and never more than MOST
times that. One slow member among others changes nothing: it is few of them.
Pure: times are arguments.
"""

from collections import deque

KEPT = 64
LEAST = 8
"""Attempts before they say anything."""
UNKNOWN = 4.0
"""Before that: a cluster that has just come up is busy."""
MARGIN = 4.0
MOST = 8.0


class Patience:
    """For one way of asking."""

    __slots__ = ("_factor", "_shares", "_since")

    def __init__(self) -> None:
        self._shares: deque[float] = deque(maxlen=KEPT)
        self._since = 0
        self._factor = UNKNOWN

    @property
    def factor(self) -> float:
        """How many times its usual limit an attempt may take."""
        return self._factor

    def took(self, share: float) -> None:
        """An attempt that came to its end took this share of its usual limit."""
        self._shares.append(share)
        self._since += 1
        if self._since >= LEAST:
            self._since = 0
            ranked = sorted(self._shares)
            typical = ranked[int(len(ranked) * 0.9)]
            self._factor = min(MOST, max(1.0, MARGIN * typical))
