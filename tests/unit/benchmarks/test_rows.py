"""Every row runs against real servers, in a size that says nothing about speed, and can fail."""

import functools
import os

import pytest

from benchmarks.bench import Bench, Scale
from benchmarks.results import OURS, RowResult
from benchmarks.rows import CATALOGUE
from benchmarks.runner import run_row
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better, ratio

# These take minutes even in their smallest size, or need other projects' programs: at full scale only.
LONG = (
    "mount_peers.", "peer.", "peers.large", "cluster.", "load.restore", "remote.",
    "scale.placement", "training.unet3d", "training.retinanet", "training.resnet50",
    "training.cosmoflow_first",
)  # fmt: skip
TRIES = 4  # one measurement says nothing when others had the machine meanwhile
FULL = float(os.environ.get("HOTSHARD_TEST_SCALE", "0")) >= 1
ROWS = [row for row in CATALOGUE if FULL or not row.name.startswith(LONG)]
SPOILED = [(row, sabotage) for row in ROWS for sabotage in row.sabotages]


# Nothing is read by these, so no byte of it can be wrong.
WITHOUT_BYTES = {
    "mount.walk", "mount_peers.walk", "scale.placement", "scale.placement_change",
    "scale.placement_balance", "policy.epochs", "policy.jobs", "policy.switch", "policy.two_datasets",
    "policy.recorded", "policy.scan",
}  # fmt: skip


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_every_row_has_what_makes_it_fail(row):
    """Its figure can be spoiled, and a wrong byte too where there are any; below, each is tried."""
    assert set(row.sabotages) - {Sabotage.FLIP, Sabotage.NONE}
    assert (Sabotage.FLIP in row.sabotages) is (row.name not in WITHOUT_BYTES)


@pytest.fixture(scope="module")
def measure(tmp_path_factory):
    def measure(row, sabotage=Sabotage.NONE) -> RowResult:
        directory = tmp_path_factory.mktemp("row") / "row"
        directory.mkdir()
        return run_row(row, Bench(str(directory), Scale.TINY, sabotage), rounds=1)

    return measure


@pytest.fixture(scope="module")
def clean(measure):
    """The result of a row as it is; measured once."""
    return functools.cache(measure)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_measures_both_sides(row, clean):
    result = clean(row)
    assert not result.error, result.error
    assert result.value
    assert result.limit
    assert set(result.runs) >= {OURS, result.limit_name}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "sabotage"), SPOILED, ids=lambda each: getattr(each, "name", str(each))
)
def test_a_row_can_fail(row, sabotage, clean, measure):
    result = measure(row, sabotage)
    if sabotage is Sabotage.FLIP:
        assert not result.ok
        assert result.error.startswith("WrongBytes")
        return
    as_it_is = [clean(row)]
    for _ in range(TRIES - 1):
        if worse(result, as_it_is):
            break
        as_it_is.append(measure(row))
        result = measure(row, sabotage)
    assert worse(result, as_it_is)


def worse(spoiled: RowResult, clean: list[RowResult]) -> bool:
    """Whether a spoiled run is told from the best of those without a fault, and from its limit."""
    assert not spoiled.error, spoiled.error
    assert spoiled.value is not None
    ratios = [ratio(spoiled.value, each.value or 0.0, Better(each.better)) for each in clean]
    return min(ratios) < 0.7 and not spoiled.ok
