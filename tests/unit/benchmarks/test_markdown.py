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


def test_misses_come_first_and_every_side_has_its_ratio():
    text = figures([FINE, ROW, BROKEN])
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0] for line in table[2:5]] == ["| a.b", "| local.x", "| local.fine"]
    assert "boom" in table[2]
    assert "more" not in text
    assert "misses" in table[3]
    assert "other 0.5 (2x), rival 0.25 (4x)" in table[4]
    assert "3 rows, 2 of them under their target or broken" in text


def test_where_lower_is_better_half_is_twice_as_good():
    assert "other 2 (2x)" in figures([replace(FINE, better=Better.LOWER, others={"other": 2.0})])


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
    assert text.count("local.fine") == 2


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_marks_is_refused(document):
    with pytest.raises(BenchError, match="marks"):
        replaced(document, "x")


def test_no_rows_are_refused():
    with pytest.raises(BenchError):
        figures([])
