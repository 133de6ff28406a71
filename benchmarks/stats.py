"""The statistics of a benchmark row: medians, spread, paired ratios, and when a change is more than noise.

Pure. Runs of both sides are taken in rounds, so the i-th value of one side and the i-th of the other
were measured within seconds of each other: ratios are formed per round and then their median is taken,
which keeps a machine that slows down between rounds out of the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

NOISE_FLOOR = 0.05  # two runs of identical code on a shared machine differ by this much


class Better(StrEnum):
    """Which way a unit improves."""

    HIGHER = "higher"
    LOWER = "lower"


class Verdict(StrEnum):
    """What became of a row between two results."""

    WORSE = "worse"
    SAME = "same"
    BETTER = "better"


@dataclass(frozen=True, slots=True)
class Summary:
    """Median and range of one side's runs."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """The whole range, as a fraction of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


def summary(values: Sequence[float]) -> Summary:
    """Median and range; needs at least one value."""
    return Summary(median(values), min(values), max(values))


def ratio(ours: float, limit: float, better: Better) -> float:
    """How near `ours` comes to `limit`: 1.0 is there, below 1.0 is worse, whichever way the unit goes."""
    above, below = (ours, limit) if better is Better.HIGHER else (limit, ours)
    return above / below if below else float("inf")


def paired(ours: Sequence[float], limit: Sequence[float], better: Better) -> Summary:
    """Median and range of the ratios of each round."""
    return summary([ratio(a, b, better) for a, b in zip(ours, limit, strict=True)])


def verdict(before: float, after: float, noise: float) -> Verdict:
    """Judge a change of a ratio: only what exceeds `noise` (a fraction) and the floor counts."""
    margin = max(noise, NOISE_FLOOR)
    if after < before * (1 - margin):
        return Verdict.WORSE
    return Verdict.BETTER if after > before * (1 + margin) else Verdict.SAME


def noise(spread_before: float, spread_after: float) -> float:
    """What two medians may differ by, from the whole ranges they were taken from: half of each."""
    return (spread_before + spread_after) / 2
