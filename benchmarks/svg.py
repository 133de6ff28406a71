"""Plots as SVG text: bars, ratios around the limit, latency percentiles, and curves over an axis.

Colours come from the style sheet of the page (report.css) by class, so that the plots follow light and dark
mode. Every plot is as wide as its place; sizes here are in units of its own view box.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

Point = tuple[float, float]

_COLOURS = 6
_DASHES = 3
_LEGEND_COLUMNS = 3
_BAR_STEP = 25
_LABEL_WIDTH = 150
_CARD_WIDTH = 520
_CURVE_HEIGHT = 230
_LEFT, _TOP = 54, 12
_CHARACTER = 7.4  # about the width of one at the size of our text, when it is bold


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar from 0 to `value`."""

    label: str
    value: float
    text: str
    """Written at its end."""
    kind: str = "peer"
    """Its class: ours, limit or peer."""
    low: float | None = None
    """With `high`, the range of the runs."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How near one row comes to its limit."""

    label: str
    value: float
    target: float
    text: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line."""

    label: str
    points: Sequence[Point]
    colour: int | None = None
    """Curves that belong together share one; default: each has its own."""
    dash: int = 0
    """0 is solid; others tell apart curves of one colour."""


def bars(items: Sequence[Bar], *, title: str) -> str:
    """A bar chart, one bar to a line."""
    reach = max((bar.high or bar.value for bar in items), default=0.0) or 1.0
    room = 12 + _CHARACTER * max((len(bar.text) for bar in items), default=0)
    scale = (_CARD_WIDTH - _LABEL_WIDTH - room) / reach
    parts = [_open(_CARD_WIDTH, _BAR_STEP * len(items) + 4, title)]
    for number, bar in enumerate(items):
        top = 2 + number * _BAR_STEP
        middle = top + (_BAR_STEP - 7) / 2
        width = max(1.0, bar.value * scale)
        parts += [
            _text(_LABEL_WIDTH - 8, middle + 4, _cut(bar.label, 21), "end", _weight(bar.kind)),
            (
                f'<rect class="{bar.kind}" x="{_LABEL_WIDTH}" y="{top}" rx="2" width="{width:.1f}"'
                f' height="{_BAR_STEP - 7}"><title>{escape(bar.label)}: {escape(bar.text)}</title></rect>'
            ),
        ]
        if bar.low is not None and bar.high is not None and bar.high > bar.low:
            ends = [(_LABEL_WIDTH + edge * scale, middle) for edge in (bar.low, bar.high)]
            parts.append(_line("range", *ends))
        end = _LABEL_WIDTH + max(bar.value, bar.high or 0.0) * scale
        parts.append(_text(end + 7, middle + 4, bar.text, "start", _weight(bar.kind)))
    return "".join([*parts, "</svg>"])


def ratios(items: Sequence[Ratio], *, title: str) -> str:
    """Rows around the limit on a logarithmic axis: 1.0 is the limit, the tick of each is its target."""
    if not items:
        return ""
    width, label_width, step = 1080, 230, 22
    values = [edge for each in items for edge in (each.value, each.target) if edge > 0]
    first = min(-1.0, math.log10(min(values)) - 0.05)
    last = max(1.0, math.log10(max(values)) + 0.05)
    plot = width - label_width - 300

    def across(value: float) -> float:
        place = (math.log10(max(value, 10**first)) - first) / (last - first)
        return label_width + min(1.0, max(0.0, place)) * plot

    height = step * len(items) + 34
    parts = [_open(width, height, title)]
    for tick in (0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0):
        if first <= math.log10(tick) <= last:
            kind = "axis" if tick == 1.0 else "gridline"
            parts.append(_line(kind, (across(tick), 4), (across(tick), height - 26)))
            name = "the limit" if tick == 1.0 else f"{tick:g}x"
            parts.append(_text(across(tick), height - 8, name, "middle", "dim"))
    for number, each in enumerate(items):
        middle = 14 + number * step
        kind = "good" if each.value >= each.target else "bad"
        value = (across(each.value), middle)
        parts += [
            _text(label_width - 10, middle + 4, each.label, "end"),
            _line(f"stem {kind}", (across(1.0), middle), value),
            _line("range", (across(each.low), middle), (across(each.high), middle)),
            _line("mark", (across(each.target), middle - 7), (across(each.target), middle + 7)),
            (
                f'<circle class="{kind}" cx="{value[0]:.1f}" cy="{middle}" r="5">'
                f"<title>{escape(each.label)}: {escape(each.text)}</title></circle>"
            ),
            _text(label_width + plot + 16, middle + 4, _cut(each.text, 46), "start", "dim"),
        ]
    return "".join([*parts, "</svg>"])


def percentiles(items: Sequence[Curve], *, title: str) -> str:
    """Latencies (ns, log axis) over percentiles in nines: 90, 99, 99.9, so that tails can be seen."""
    kept = [
        Curve(each.label, [(_nines(p), ns) for ns, p in each.points if ns > 0]) for each in items
    ]
    ticks = [(_nines(p), f"p{p:g}") for p in (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)]
    return _plot(kept, title, ticks, _decades(kept), (lambda x: x, math.log10))


def curves(items: Sequence[Curve], *, title: str, axes: Sequence[str]) -> str:
    """Lines over a linear axis; y begins at 0."""
    points = [point for each in items for point in each.points]
    if not points:
        return ""
    xs = sorted({x for x, _ in points})
    shown = xs if len(xs) <= 12 else [xs[0], *(xs[len(xs) * i // 6] for i in range(1, 6)), xs[-1]]
    top = max(y for _, y in points) or 1.0
    step = _step(top)
    marks = [(step * i, f"{step * i:g}") for i in range(int(top / step + 1e-9) + 2)]
    ticks = [(x, f"{x:g}") for x in shown]
    return _plot(items, title, ticks, marks, (lambda x: x, lambda y: y), axes=axes, dots=True)


def duration(nanoseconds: float) -> str:
    """A time as people write it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


Scale = Callable[[float], float]
Ticks = Sequence[tuple[float, str]]


def _plot(
    items: Sequence[Curve],
    title: str,
    x_ticks: Ticks,
    y_ticks: Ticks,
    scales: tuple[Scale, Scale],
    *,
    axes: Sequence[str] = ("", ""),
    dots: bool = False,
) -> str:
    if not any(each.points for each in items):
        return ""
    across, up = scales
    left, right = (across(edge(x for x, _ in x_ticks)) for edge in (min, max))
    low, high = (up(edge(y for y, _ in y_ticks)) for edge in (min, max))
    width = _CARD_WIDTH - _LEFT - 26

    def place(x: float, y: float) -> Point:
        right_by = (across(x) - left) / ((right - left) or 1.0)
        up_by = (up(y) - low) / ((high - low) or 1.0)
        return (
            _LEFT + min(1.0, max(0.0, right_by)) * width,
            _TOP + (1 - min(1.0, max(0.0, up_by))) * _CURVE_HEIGHT,
        )

    bottom = _TOP + _CURVE_HEIGHT
    legend = bottom + (44 if axes[0] else 30)
    parts = [_open(_CARD_WIDTH, legend + 18 * _legend_lines(items), title)]
    for x, name in x_ticks:
        at = place(x, y_ticks[0][0])[0]
        parts += [
            _line("gridline", (at, _TOP), (at, bottom)),
            _text(at, bottom + 16, name, "middle", "dim"),
        ]
    for y, name in y_ticks:
        at = place(x_ticks[0][0], y)[1]
        parts += [
            _line("gridline", (_LEFT, at), (_LEFT + width, at)),
            _text(_LEFT - 6, at + 4, name, "end", "dim"),
        ]
    if axes[0]:
        parts.append(_text(_LEFT + width / 2, bottom + 32, axes[0], "middle", "dim"))
        parts.append(_text(_LEFT + 4, _TOP + 10, axes[1], "start", "dim"))
    for number, each in enumerate(items):
        parts += _curve(each, _kind(each, number), place, dots=dots)
    return "".join([*parts, *_legend(items, legend), "</svg>"])


def _kind(curve: Curve, number: int) -> str:
    colour = f"k{(number if curve.colour is None else curve.colour) % _COLOURS}"
    return f"{colour} d{curve.dash % _DASHES}" if curve.dash else colour


def _legend_lines(items: Sequence[Curve]) -> int:
    return len(items) if len(items) <= _COLOURS else -(-len(items) // _LEGEND_COLUMNS)


def _legend(items: Sequence[Curve], top: float) -> Iterable[str]:
    """The names of curves, one below the other, in several columns if they are many."""
    for number, each in enumerate(items):
        column, line = divmod(number, _legend_lines(items))
        left, at = 2 + column * (_CARD_WIDTH - 2) / _LEGEND_COLUMNS, top + 18 * line
        yield _line(_kind(each, number), (left, at), (left + 20, at))
        yield _text(left + 26, at + 4, each.label, "start")


def _curve(
    curve: Curve, kind: str, place: Callable[[float, float], Point], *, dots: bool
) -> Iterable[str]:
    spots = [place(x, y) for x, y in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    yield f'<polyline class="{kind}" points="{path}"><title>{escape(curve.label)}</title></polyline>'
    if dots:
        for x, y in spots:
            yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _nines(percent: float) -> float:
    """0 for the least, 1 for the 90th percentile, 2 for the 99th, 3 for the 99.9th."""
    return -math.log10(max(1e-4, 1 - percent / 100))


def _decades(items: Sequence[Curve]) -> Ticks:
    values = [y for each in items for _, y in each.points]
    if not values:
        return [(1.0, "1 ns")]
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [
        (10.0**power, duration(10.0**power)) for power in range(first, max(last, first + 1) + 1)
    ]


def _step(top: float) -> float:
    """A round number that divides an axis up to `top` into some parts."""
    raw = top / 4
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)


def _weight(kind: str) -> str:
    return "strong" if kind == "ours" else ""


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
    )


def _line(kind: str, start: Point, end: Point) -> str:
    return (
        f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}"'
        f' x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
