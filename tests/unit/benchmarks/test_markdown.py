from dataclasses import replace

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.markdown import BEGIN, END, figures, replaced
from benchmarks.results import BenchError, dump
from benchmarks.stats import Better
from unit.benchmarks.test_results import ROW

FINE = replace(ROW, row="local.fine", ok=True, others={"other": 0.5}, peers={"rival": 0.25})
BROKEN = replace(ROW, row="a.b", value=None, limit=None, ratio=None, spread={}, error="boom\nmore")


def test_what_broke_comes_first_then_misses_and_why_then_the_rest():
    text = figures([FINE, ROW, BROKEN], {"local.x": "the kernel", "local.fine": "unused"})
    assert "3 rows, 2 of them below their target or broken" in text
    order = ["- a.b: boom", "1 row below the target", "| local.x |", "- local.x: the kernel",
             "1 row at the target", "| local.fine |"]  # fmt: skip
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert "more" not in text
    assert "unused" not in text


def test_a_miss_that_nobody_explained_says_so():
    assert "- local.x: not explained yet" in figures([ROW], {})


def test_every_side_has_its_ratio_and_the_ratio_its_range():
    text = figures([FINE], {})
    assert "other 0.5 (2x), rival 0.25 (4x)" in text
    assert "| 0.50 ±5% |" in text


def test_where_lower_is_better_half_is_twice_as_good():
    text = figures([replace(FINE, better=Better.LOWER, others={"other": 2.0})], {})
    assert "other 2 (2x)" in text


def test_rows_that_took_too_long_are_named():
    assert "Every row stayed within its time" in figures([ROW], {})
    assert "local.x (90 s of 45)" in figures([replace(ROW, seconds=90.0)], {})


def test_a_document_gets_new_figures_and_keeps_the_rest(tmp_path):
    document, taken = tmp_path / "doc.md", tmp_path / "a.json"
    document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    taken.write_text(dump([FINE]))
    for _ in range(2):
        done = CliRunner().invoke(main, ["table", str(taken), "--into", str(document)])
        assert done.exit_code == 0, done.output
    text = document.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.count("local.fine") == 1


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(BenchError, match="marks"):
        replaced(document, "x")


def test_no_rows_are_refused():
    with pytest.raises(BenchError):
        figures([], {})
