import re
from array import array
from dataclasses import replace
from xml.etree import ElementTree

from benchmarks import svg
from benchmarks.load import latency
from benchmarks.report import html
from benchmarks.results import Measured, run_record
from unit.benchmarks.test_results import ROW

HISTOGRAM = latency.encode(array("Q", range(1000, 90_000, 10)))
RUN = run_record(Measured(1.0, 1.0, 10**9, 5, {"client": 0.5}, histogram=HISTOGRAM))
FULL = replace(ROW, spread={"value": 0.1, "limit": 0.1, "ratio": 0.1}, others={"other": 1.5},
               runs={"hotshard": [RUN], "native": [RUN]})  # fmt: skip
BROKEN = replace(ROW, row="a.b", value=None, limit=None, ratio=None, spread={}, error="<boom> & co")


def test_the_page_needs_nothing_else_and_shows_everything():
    page = html([FULL, BROKEN], {})
    assert not re.search(r"(src|href)\s*=|url\(|@import|<script", page)
    for expected in (
        "local.x",
        "0.50",
        "native",
        "other",
        "&lt;boom&gt; &amp; co",
        "Latencies",
        "CPU seconds per GB",
    ):
        assert expected in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_rows_that_miss_come_first():
    page = html([replace(FULL, row="fine", ok=True), replace(FULL, row="missed", ok=False)], {})
    assert page.index(">missed<") < page.index(">fine<")


def test_a_miss_says_why_and_no_other_row_does():
    notes = {"fine": "unused", "missed": "the <kernel>"}
    page = html([replace(FULL, row="fine", ok=True), replace(FULL, row="missed")], notes)
    assert "Why it misses: the &lt;kernel&gt;." in page
    assert "unused" not in page


def test_no_rows_make_a_page_too():
    assert "No rows" in html([], {})


def test_labels_are_escaped():
    bars = svg.bars([svg.Bar("<a>&", 1.0, "<b>", "ours", low=0.9, high=1.1)], title="<t>")
    around = svg.ratios([svg.Ratio("<a>&", 0.5, 0.9, "<b>", 0.4, 0.6)], title="<t>")
    lines = svg.curves([svg.Curve("<a>&", [(1, 2), (2, 0)])], title="<t>", axes=("<x>", "<y>"))
    for drawing in (bars, around, lines):
        ElementTree.fromstring(drawing)


def test_curves_of_a_run_are_drawn_with_their_axes():
    run = run_record(Measured(1.0, curves={"c = 50%": [(1, 0.0), (2, 0.5)]}))
    later = run_record(Measured(1.0, curves={"c = 50%": [(2, 0.5)]}))
    page = html([replace(FULL, runs={"hotshard": [run, later]}, axes=["epoch", "hit ratio"])], {})
    assert len(re.findall(r'<circle class="k0"', page)) == 2  # those of the fuller run
    for expected in ("c = 50%", ">epoch<", ">hit ratio<", "<polyline"):
        assert expected in page


def test_nothing_to_draw_draws_nothing():
    assert svg.ratios([], title="t") == ""
    assert svg.percentiles([], title="t") == ""
    assert svg.curves([svg.Curve("a", [])], title="t", axes=("", "")) == ""


def test_a_target_stands_where_its_value_would():
    """The axis is the same for both: what reaches its target exactly is drawn on the tick."""
    drawing = svg.ratios([svg.Ratio("a", 0.8, 0.8, "t", 0.8, 0.8)], title="t")
    (tick,) = re.findall(r'class="mark" x1="([\d.]+)"', drawing)
    (dot,) = re.findall(r'cx="([\d.]+)"', drawing)
    assert tick == dot


def test_durations():
    assert [svg.duration(ns) for ns in (5, 1500, 2e6, 3e9)] == ["5 ns", "1.5 µs", "2 ms", "3 s"]


def test_curves_of_other_sides_have_the_colour_of_their_name_and_a_dash_of_their_own():
    run = run_record(Measured(1.0, curves={"c=10%": [(1, 0.0)], "c=50%": [(1, 0.5)]}))
    page = html([replace(FULL, runs={"LRU": [run], "hotshard": [run]}, axes=["epoch", "%"])], {})
    assert page.index("c=10%</title>") < page.index("c=10%, LRU</title>")
    for kind in ("k0", "k1", "k0 d1", "k1 d1"):
        assert len(re.findall(rf'<polyline class="{kind}"', page)) == 1
