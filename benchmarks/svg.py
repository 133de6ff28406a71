"""Two plots as SVG text: bars with a target mark, and curves over a logarithmic axis.

Colours come from the style sheet of the page (classes `bar`, `mark`, `curve-0`, ...), so that the plots
follow light and dark mode.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_LABEL_WIDTH = 190
_PLOT_WIDTH = 560
_BAR_STEP = 26
_CURVE_HEIGHT = 260
_MARGIN = 48
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar from 0 to `value`."""

    label: str
    value: float
    text: str
    """Written at its end."""
    kind: str = "good"
    """Class of the bar: good, bad or plain."""
    mark: float | None = None
    """Where a tick is drawn: the target."""
    low: float | None = None
    """With `high`, the range of the runs."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line; x > 0, y in [0, 100]."""

    label: str
    points: Sequence[Point]


def bars(items: Sequence[Bar], *, title: str) -> str:
    """A bar chart, one bar to a line."""
    reach = max([1.0, *(edge for bar in items for edge in (bar.value, bar.mark, bar.high) if edge)])
    scale = (_PLOT_WIDTH - 90) / reach
    height = _BAR_STEP * len(items) + 6
    parts = [_open(_LABEL_WIDTH + _PLOT_WIDTH, height, title)]
    for number, bar in enumerate(items):
        parts += _bar(bar, 4 + number * _BAR_STEP, scale)
    return "".join([*parts, "</svg>"])


def curves(items: Sequence[Curve], *, title: str, x_label: str) -> str:
    """Percentile curves over a logarithmic x axis."""
    xs = [x for curve in items for x, _ in curve.points if x > 0]
    if not xs:
        return ""
    first, last = math.floor(math.log10(min(xs))), math.ceil(math.log10(max(xs)))
    decades = max(1, last - first)

    def place(x: float, y: float) -> Point:
        across = (math.log10(max(x, 10.0**first)) - first) / decades
        return _MARGIN + across * _PLOT_WIDTH, 14 + (1 - y / 100) * _CURVE_HEIGHT

    parts = [_open(_PLOT_WIDTH + 2 * _MARGIN + 130, _CURVE_HEIGHT + 60, title)]
    for y in (0, 25, 50, 75, 90, 99):
        left, height = place(10.0**first, y)
        parts.append(_line("grid", (left, height), (left + _PLOT_WIDTH, height)))
        parts.append(_text(left - 6, height + 4, f"{y}%", "end"))
    for exponent in range(first, first + decades + 1):
        x, top = place(10.0**exponent, 100)
        parts.append(_line("grid", (x, top), (x, top + _CURVE_HEIGHT)))
        parts.append(_text(x, top + _CURVE_HEIGHT + 16, duration(10.0**exponent), "middle"))
    bottom = 14 + _CURVE_HEIGHT + 38
    parts.append(_text(_MARGIN + _PLOT_WIDTH / 2, bottom, escape(x_label), "middle"))
    for number, curve in enumerate(items):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve.points)
        name = escape(curve.label)
        parts.append(
            f'<polyline class="curve-{number % 4}" points="{path}"><title>{name}</title></polyline>'
        )
        key = (_MARGIN + _PLOT_WIDTH + 10, 24 + 18 * number)
        parts.append(_line(f"curve-{number % 4}", key, (key[0] + 18, key[1])))
        parts.append(_text(key[0] + 24, key[1] + 4, name, "start"))
    return "".join([*parts, "</svg>"])


def duration(nanoseconds: float) -> str:
    """A time as people write it."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def _bar(bar: Bar, top: float, scale: float) -> list[str]:
    middle = top + _BAR_STEP / 2 - 2
    width = max(1.0, bar.value * scale)
    end = (
        _LABEL_WIDTH
        + max(edge for edge in (bar.value, bar.mark, bar.high) if edge is not None) * scale
    )
    parts = [
        _text(_LABEL_WIDTH - 8, middle + 4, escape(bar.label), "end"),
        (
            f'<rect class="bar {bar.kind}" x="{_LABEL_WIDTH}" y="{top}" width="{width:.1f}"'
            f' height="{_BAR_STEP - 8}"><title>{escape(bar.text)}</title></rect>'
        ),
        _text(end + 8, middle + 4, escape(bar.text), "start"),
    ]
    if bar.mark is not None:
        x = _LABEL_WIDTH + bar.mark * scale
        parts.append(_line("mark", (x, top - 3), (x, top + _BAR_STEP - 5)))
    if bar.low is not None and bar.high is not None:
        low, high = _LABEL_WIDTH + bar.low * scale, _LABEL_WIDTH + bar.high * scale
        parts.append(_line("range", (low, middle), (high, middle)))
    return parts


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img"'
        f' aria-label="{escape(title)}" xmlns="http://www.w3.org/2000/svg">'
    )


def _line(kind: str, start: Point, end: Point) -> str:
    return (
        f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}"'
        f' x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'
