import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmarks import rows
from benchmarks.__main__ import WHOLE_RUN_S, main
from benchmarks.bench import Row
from benchmarks.results import BenchError
from benchmarks.rows import CATALOGUE, select

TINY = ["run", "harness.self", "--scale", "tiny", "--rounds", "1"]


def call(*arguments):
    return CliRunner().invoke(main, arguments)


def test_list_names_every_row():
    shown = call("list").output
    assert all(row.name in shown for row in CATALOGUE)


def test_names_are_unique_and_suites_select_their_rows():
    names = [row.name for row in CATALOGUE]
    assert len(set(names)) == len(names)
    assert select(["all"]) == list(CATALOGUE)
    assert {row.name for row in select(["harness"])} == {"harness.self"}
    assert {row.name for row in select(["quick"])} == {r.name for r in CATALOGUE if r.quick}
    with pytest.raises(BenchError, match="no row"):
        select(["har"])


def test_the_times_that_rows_may_take_add_up_to_a_whole_run():
    assert sum(row.budget_s for row in CATALOGUE) <= WHOLE_RUN_S


def test_run_says_what_took_too_long(monkeypatch):
    row = replace(CATALOGUE[0], budget_s=0.0)
    monkeypatch.setattr("benchmarks.__main__.select", lambda _: [row])
    monkeypatch.setattr("benchmarks.__main__.WHOLE_RUN_S", 0.0)
    shown = call(*TINY, "--no-gate").output
    for expected in ("1 row in", "harness.self took", "this one was longer"):
        assert expected in shown


def test_run_compare_report(tmp_path):
    taken = str(tmp_path / "a.json")
    ran = call(*TINY, "--no-gate", "--json", taken)
    assert ran.exit_code == 0, ran.output
    (row,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    wanted = {
        "row",
        "value",
        "unit",
        "limit",
        "limit_name",
        "ratio",
        "target",
        "ok",
        "machine",
        "runs",
    }
    assert wanted <= row.keys()
    assert call("compare", taken, taken).exit_code == 0
    page = tmp_path / "page.html"
    assert call("report", taken, "-o", str(page)).exit_code == 0
    assert "harness.self" in page.read_text()


def test_a_row_under_its_target_is_exit_code_3_unless_not_gated(monkeypatch):
    assert call(*TINY, "--sabotage", "slow").exit_code == 3
    assert call(*TINY, "--sabotage", "slow", "--no-gate").exit_code == 0


def test_wrong_bytes_are_exit_code_1_gated_or_not():
    assert call(*TINY, "--sabotage", "flip", "--no-gate").exit_code == 1


def test_worse_results_are_exit_code_1(tmp_path):
    good, bad = str(tmp_path / "good.json"), str(tmp_path / "bad.json")
    call(*TINY, "--json", good)
    call(*TINY, "--json", bad, "--sabotage", "slow")
    assert call("compare", good, bad).exit_code == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "nonsense"),
        ("run", "harness", "--scale", "huge"),
        ("compare", "/nowhere", "/nowhere"),
        ("report", "/nowhere"),
        ("compare", __file__, __file__),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments):
    assert call(*arguments).exit_code == 2


def test_rows_of_the_catalogue_are_rows():
    assert all(isinstance(row, Row) for row in rows.CATALOGUE)
