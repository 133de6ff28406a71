"""Every row runs against real servers, in a size that says nothing about speed, and can fail."""

import pytest

from benchmarks.bench import Bench, Scale
from benchmarks.results import OURS
from benchmarks.rows import CATALOGUE
from benchmarks.runner import run_row
from benchmarks.sabotage import Sabotage

SPOILED = [(row, sabotage) for row in CATALOGUE for sabotage in row.sabotages]


@pytest.mark.slow
@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_a_row_measures_both_sides(row, tmp_path):
    result = run_row(row, Bench(str(tmp_path), Scale.TINY), rounds=1)
    assert not result.error, result.error
    assert result.value
    assert result.limit
    assert set(result.runs) >= {OURS, result.limit_name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "sabotage"), SPOILED, ids=lambda each: getattr(each, "name", str(each))
)
def test_a_row_can_fail(row, sabotage, tmp_path):
    result = run_row(row, Bench(str(tmp_path), Scale.TINY, sabotage), rounds=1)
    assert not result.ok
    if sabotage is Sabotage.FLIP:
        assert result.error.startswith("WrongBytes")
    else:
        assert not result.error, result.error
