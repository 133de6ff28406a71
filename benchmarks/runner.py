"""Runs rows: warm-up, then rounds in which every side has its turn, then the verdict.

The order of the sides turns round from one round to the next (limit, ours / ours, limit / ...), so that
neither side always gets the machine as the other left it. A row that raises becomes a result with an
error; the rows after it still run.
"""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from benchmarks import machine
from benchmarks.bench import Bench, Row, Scale, Sides
from benchmarks.results import OURS, Measured, RowResult, run_record
from benchmarks.stats import Better, Summary, paired, summary

Progress = Callable[[str], None]
Runs = dict[str, list[Measured]]
"""By the name of the side."""
_QUICK_ROUNDS = 3
"""At most so many timed runs of each side in a quick run."""


def run_rows(
    rows: Sequence[Row],
    bench: Bench,
    *,
    rounds: int | None = None,
    progress: Progress = print,
    keep: Callable[[Sequence[RowResult]], None] = lambda _: None,
) -> list[RowResult]:
    """Run rows one after the other; each gets a directory of its own below the bench's.

    Args:
        rows: in this order.
        bench: where and how big.
        rounds: timed runs of each side; default: as each row has it.
        progress: is told what begins.
        keep: is given all results so far after each row: a long run that is cut short has not run for
            nothing.
    """
    results = []
    for row in rows:
        progress(f"{row.name}: {row.title}")
        directory = tempfile.mkdtemp(prefix=f"{row.name}-", dir=bench.directory)
        try:
            results.append(run_row(row, replace(bench, directory=directory), rounds=rounds))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        keep(results)
    return results


def run_row(row: Row, bench: Bench, *, rounds: int | None = None) -> RowResult:
    """Run one row."""
    facts = {**machine.facts(), "scale": bench.scale.value, "sabotage": bench.sabotage.value}
    runs: Runs = {}
    begun = time.monotonic()
    try:
        with row.open(bench) as sides:
            _take_runs(sides, runs, rounds or _rounds(row, bench.scale), warm_up=row.warm_up)
        result = judge(row, runs, facts, peers=sides.peers)
    except Exception as error:  # one row that breaks does not take the others with it
        text = "".join(traceback.format_exception(error))
        result = _broken(row, facts, runs, f"{type(error).__name__}: {error}\n{text}")
    return replace(result, seconds=time.monotonic() - begun)


def _rounds(row: Row, scale: Scale) -> int:
    return min(row.rounds, _QUICK_ROUNDS) if scale is Scale.QUICK else row.rounds


def judge(
    row: Row, runs: Runs, facts: dict[str, object], *, peers: Collection[str] = ()
) -> RowResult:
    """Make the row's line from its runs; the best limit by median is the limit."""
    beside = {name: summary(_values(taken)) for name, taken in runs.items() if name != OURS}
    medians = {name: each for name, each in beside.items() if name not in peers}
    pick = max if row.better is Better.HIGHER else min
    best = pick(medians, key=lambda name: medians[name].median)
    ours = summary(_values(runs[OURS]))
    ratios = paired(_values(runs[OURS]), _values(runs[best]), row.better)
    return RowResult(
        row=row.name,
        title=row.title,
        unit=row.unit,
        better=row.better,
        value=ours.median,
        limit=medians[best].median,
        limit_name=best,
        ratio=ratios.median,
        target=row.target,
        ok=ratios.median >= row.target,
        spread=_spreads(ours, medians[best], ratios),
        others={name: each.median for name, each in medians.items() if name != best},
        peers={name: each.median for name, each in beside.items() if name in peers},
        axes=list(row.axes),
        seconds=0.0,
        budget_s=row.budget_s,
        machine=facts,
        runs=_records(runs),
    )


def _take_runs(sides: Sides, runs: Runs, rounds: int, *, warm_up: bool) -> None:
    everyone = [*sides.limits.items(), *sides.peers.items(), (OURS, sides.ours)]
    if warm_up:
        for _, side in everyone:
            side()
    for number in range(rounds):
        for name, side in everyone if number % 2 == 0 else reversed(everyone):
            runs.setdefault(name, []).append(side())


def _broken(row: Row, facts: dict[str, object], runs: Runs, error: str) -> RowResult:
    return RowResult(
        row=row.name,
        title=row.title,
        unit=row.unit,
        better=row.better,
        value=None,
        limit=None,
        limit_name="",
        ratio=None,
        target=row.target,
        ok=False,
        spread={},
        others={},
        peers={},
        axes=list(row.axes),
        seconds=0.0,
        budget_s=row.budget_s,
        machine=facts,
        runs=_records(runs),
        error=error,
    )


def _values(taken: Sequence[Measured]) -> list[float]:
    return [run.value for run in taken]


def _spreads(value: Summary, limit: Summary, ratio: Summary) -> dict[str, float]:
    return {"value": value.spread, "limit": limit.spread, "ratio": ratio.spread}


def _records(runs: Runs) -> dict[str, list[dict[str, object]]]:
    return {name: [run_record(run) for run in taken] for name, taken in runs.items()}
