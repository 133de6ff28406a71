"""What a cluster did over the last hour, from the totals that its nodes remember. Pure.

Nodes take their samples at times of their own, and may have been started in between. Each node's totals are
looked up at the borders of the intervals (linear between two samples, nothing before the first one), and
the differences are summed up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Totals:
    """Counters of one node at one moment."""

    at_s: float
    hit_bytes: float = 0
    asked_bytes: float = 0
    peer_bytes: float = 0
    origin_bytes: float = 0


@dataclass(frozen=True, slots=True)
class Interval:
    """What all nodes together did from `start_s` on, for `length_s`."""

    start_s: float
    length_s: float
    hit_bytes: float = 0
    asked_bytes: float = 0
    peer_bytes: float = 0
    origin_bytes: float = 0

    @property
    def hit_ratio(self) -> float | None:
        """Of the bytes asked for, those that were there; None: nothing was asked for."""
        return min(1.0, self.hit_bytes / self.asked_bytes) if self.asked_bytes >= 1 else None


def intervals(
    history: Sequence[Totals], now_s: float, *, length_s: float, count: int
) -> list[Interval]:
    """The last `count` intervals of one node, oldest first; the last one ends now."""
    borders = [now_s - length_s * (count - i) for i in range(count + 1)]
    at = list(_at(history, borders))
    return [
        Interval(border, length_s, *(max(0.0, b - a) for a, b in zip(before, after, strict=True)))
        for border, before, after in zip(borders, at, at[1:], strict=False)
    ]


def summed(nodes: Sequence[Sequence[Interval]]) -> list[Interval]:
    """The same intervals of several nodes, as those of all."""
    return [
        Interval(
            same[0].start_s,
            same[0].length_s,
            sum(each.hit_bytes for each in same),
            sum(each.asked_bytes for each in same),
            sum(each.peer_bytes for each in same),
            sum(each.origin_bytes for each in same),
        )
        for same in zip(*nodes, strict=True)
    ]


def over(found: Sequence[Interval]) -> Interval:
    """Several intervals one after the other, as one."""
    if not found:
        return Interval(0.0, 1.0)
    return Interval(
        found[0].start_s,
        sum(each.length_s for each in found),
        sum(each.hit_bytes for each in found),
        sum(each.asked_bytes for each in found),
        sum(each.peer_bytes for each in found),
        sum(each.origin_bytes for each in found),
    )


def _at(history: Sequence[Totals], borders: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """The counters at ascending moments."""
    if not history:
        yield from ((0.0,) * 4 for _ in borders)
        return
    i = 0
    for border in borders:
        while i < len(history) and history[i].at_s <= border:
            i += 1
        if i == 0 or i == len(history):
            yield _counters(history[max(0, i - 1)])
            continue
        before, after = history[i - 1], history[i]
        share = (border - before.at_s) / (after.at_s - before.at_s)
        yield tuple(
            a + share * (b - a) for a, b in zip(_counters(before), _counters(after), strict=True)
        )


def _counters(totals: Totals) -> tuple[float, ...]:
    return totals.hit_bytes, totals.asked_bytes, totals.peer_bytes, totals.origin_bytes
