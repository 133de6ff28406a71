"""Two result files side by side: which rows got better or worse by more than the noise.

Ratios to the limit are compared, not values: the limit was measured in the same run, so a faster machine
or a busier hour drops out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.results import RowResult
from benchmarks.stats import Verdict, noise, verdict


@dataclass(frozen=True, slots=True)
class Change:
    """One row of two files."""

    row: str
    before: float | None
    """Its ratio to the limit; None: not there, or not measured."""
    after: float | None
    noise: float
    verdict: Verdict


def compare(before: Sequence[RowResult], after: Sequence[RowResult]) -> list[Change]:
    """The rows of both files, in the order of the first. A row that broke since is worse."""
    later = {result.row: result for result in after}
    return [_change(old, later[old.row]) for old in before if old.row in later]


def _change(old: RowResult, new: RowResult) -> Change:
    if old.ratio is None or new.ratio is None:
        judged = Verdict.SAME if old.ratio == new.ratio else _broke(new)
        return Change(old.row, old.ratio, new.ratio, 0.0, judged)
    margin = noise(old.spread["ratio"], new.spread["ratio"])
    return Change(old.row, old.ratio, new.ratio, margin, verdict(old.ratio, new.ratio, margin))


def _broke(new: RowResult) -> Verdict:
    return Verdict.WORSE if new.ratio is None else Verdict.BETTER
