from dataclasses import replace

from benchmarks.compare import compare
from benchmarks.stats import Verdict
from unit.benchmarks.test_results import ROW

GOOD = replace(ROW, ratio=1.0, spread={"value": 0.0, "limit": 0.0, "ratio": 0.02})
BROKEN = replace(ROW, value=None, limit=None, ratio=None, spread={}, error="boom")


def only(before, after):
    (change,) = compare([before], [after])
    return change.verdict


def test_a_change_within_the_noise_is_none():
    assert only(GOOD, replace(GOOD, ratio=0.96)) is Verdict.SAME


def test_a_change_beyond_the_noise_counts():
    assert only(GOOD, replace(GOOD, ratio=0.9)) is Verdict.WORSE
    assert only(GOOD, replace(GOOD, ratio=1.1)) is Verdict.BETTER


def test_wide_spreads_excuse_more():
    wide = replace(GOOD, spread={"value": 0.0, "limit": 0.0, "ratio": 0.3})
    assert only(wide, replace(wide, ratio=0.9)) is Verdict.SAME


def test_a_row_that_broke_is_worse_and_one_that_was_mended_is_better():
    assert only(GOOD, BROKEN) is Verdict.WORSE
    assert only(BROKEN, GOOD) is Verdict.BETTER
    assert only(BROKEN, BROKEN) is Verdict.SAME


def test_rows_of_only_one_file_are_left_out():
    assert compare([GOOD], [replace(GOOD, row="other")]) == []
