import os
from contextlib import contextmanager

import pytest

from benchmarks.bench import Bench, Row, Scale, Sides, constant
from benchmarks.results import BenchError, Measured
from benchmarks.runner import run_row, run_rows
from benchmarks.stats import Better


def row(ours, limits, **changes):
    @contextmanager
    def open_sides(bench):
        yield Sides(ours=ours, limits=limits)

    given = {"name": "x.y", "title": "t", "unit": "GB/s", "target": 0.8, "open": open_sides}
    return Row(**{**given, **changes})


def scripted(log, name, values):
    left = iter(values)

    def side():
        log.append(name)
        return Measured(next(left))

    return side


def test_sides_take_turns_and_the_order_turns_round(tmp_path):
    log: list[str] = []
    ours, limit = scripted(log, "o", [9, 1, 2, 3]), scripted(log, "l", [9, 2, 2, 2])
    result = run_row(row(ours, {"native": limit}), Bench(str(tmp_path)))
    assert log == ["l", "o", "l", "o", "o", "l", "l", "o"]  # the first two are the warm-up
    assert (result.value, result.limit, result.ratio, result.ok) == (2, 2, 1.0, True)
    assert [run["value"] for run in result.runs["hotshard"]] == [1, 2, 3]


def test_the_best_limit_counts(tmp_path):
    limits = {"slow": constant(1.0), "fast": constant(4.0)}
    result = run_row(row(constant(2.0), limits), Bench(str(tmp_path)))
    assert (result.limit_name, result.ratio, result.ok) == ("fast", 0.5, False)
    assert result.others == {"slow": 1.0}


def test_what_is_measured_beside_is_never_the_limit(tmp_path):
    @contextmanager
    def open_sides(bench):
        yield Sides(constant(2.0), {"native": constant(4.0)}, {"rival": constant(9.0)})

    result = run_row(row(None, {}, open=open_sides), Bench(str(tmp_path)))
    assert (result.limit_name, result.ratio) == ("native", 0.5)
    assert (result.peers, result.others) == ({"rival": 9.0}, {})
    assert len(result.runs["rival"]) == 3


def test_a_result_says_how_long_it_took_and_might_have(tmp_path):
    result = run_row(row(constant(1.0), {"n": constant(1.0)}, budget_s=7.0), Bench(str(tmp_path)))
    assert 0 < result.seconds < result.budget_s == 7.0


def test_where_lower_is_better_the_lowest_limit_counts(tmp_path):
    limits = {"slow": constant(4.0), "fast": constant(1.0)}
    one = row(constant(2.0), limits, better=Better.LOWER)
    result = run_row(one, Bench(str(tmp_path)))
    assert (result.limit_name, result.ratio) == ("fast", 0.5)


def test_a_cold_row_has_no_warm_up_and_rounds_may_be_given(tmp_path):
    log: list[str] = []
    cold = row(scripted(log, "o", [1, 1]), {"n": constant(1.0)}, warm_up=False)
    run_row(cold, Bench(str(tmp_path)), rounds=2)
    assert log == ["o", "o"]


def test_a_row_that_raises_is_broken_and_the_next_one_still_runs(tmp_path):
    def broken():
        raise BenchError("no server")

    rows = [row(broken, {"n": constant(1.0)}), row(constant(1.0), {"n": constant(1.0)})]
    first, second = run_rows(rows, Bench(str(tmp_path)), progress=lambda _: None)
    assert first.error.startswith("BenchError: no server")
    assert (first.ok, first.ratio) == (False, None)
    assert second.ok


def test_results_are_kept_after_every_row(tmp_path):
    kept: list[int] = []
    rows = [row(constant(1.0), {"n": constant(1.0)})] * 3
    run_rows(
        rows, Bench(str(tmp_path)), progress=lambda _: None, keep=lambda r: kept.append(len(r))
    )
    assert kept == [1, 2, 3]


def test_rows_leave_nothing_behind(tmp_path):
    @contextmanager
    def messy(bench):
        with open(os.path.join(bench.directory, "left"), "w"):
            yield Sides(ours=constant(1.0), limits={"n": constant(1.0)})

    run_rows([row(None, {}, open=messy)], Bench(str(tmp_path)), progress=lambda _: None)
    assert os.listdir(tmp_path) == []


def test_teardown_happens_when_a_run_fails(tmp_path):
    closed = []

    @contextmanager
    def watched(bench):
        try:
            yield Sides(ours=scripted([], "o", []), limits={"n": constant(1.0)})
        finally:
            closed.append(True)

    assert run_row(row(None, {}, open=watched), Bench(str(tmp_path))).error
    assert closed == [True]


@pytest.mark.parametrize("field", ["kernel", "cpus", "python", "packages", "load_1m", "scale"])
def test_every_result_says_on_which_machine(tmp_path, field):
    result = run_row(row(constant(1.0), {"n": constant(1.0)}), Bench(str(tmp_path)))
    assert result.machine[field]


@pytest.mark.parametrize(("rounds", "taken"), [(1, 1), (9, 3)])
def test_a_quick_run_takes_no_more_rounds_than_the_row_and_not_many(tmp_path, rounds, taken):
    log: list[str] = []
    one = row(scripted(log, "o", [1] * 9), {"n": constant(1.0)}, warm_up=False, rounds=rounds)
    run_row(one, Bench(str(tmp_path), Scale.QUICK))
    assert len(log) == taken
