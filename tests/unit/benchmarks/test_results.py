import json
from dataclasses import replace

import pytest

from benchmarks.results import BenchError, Measured, RowResult, dump, load, run_record
from benchmarks.stats import Better

ROW = RowResult(
    row="local.x", title="x", unit="GB/s", better=Better.HIGHER, value=1.0, limit=2.0,
    limit_name="native", ratio=0.5, target=0.9, ok=False, spread={"ratio": 0.1}, others={},
    peers={}, axes=["", ""], seconds=1.0, budget_s=45.0,
    machine={"cpus": 2}, runs={"hotshard": [run_record(Measured(1.0, 1.0, 10**9, 5, {"client": 0.5}))]},
)  # fmt: skip


def test_a_file_comes_back_as_it_was_written():
    broken = replace(ROW, value=None, limit=None, ratio=None, error="boom")
    assert load(dump([ROW, broken]), source="x") == [ROW, broken]


def test_runs_say_what_a_gigabyte_cost():
    assert run_record(Measured(1.0, 1.0, 2 * 10**9, 5, {"client": 0.5}))["cpu_s_per_gb"] == {
        "client": 0.25
    }
    assert run_record(Measured(1.0))["cpu_s_per_gb"] == {}


def without(field):
    document = json.loads(dump([ROW]))
    del document["rows"][0][field]
    return json.dumps(document)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other/9", "rows": []}', "null", without("ratio")]
)
def test_anything_else_is_refused_with_the_file_named(text):
    with pytest.raises(BenchError, match=r"some\.json"):
        load(text, source="some.json")
