"""Pictures of the status page, as SVG without text: bars, a line, stacked columns. Pure."""

from collections.abc import Sequence

from cache_server.core.trend import Interval
from cache_server.page.markup import Html, element, joined

WIDTH = 600
HEIGHT = 100
SOURCES = ("local", "peer", "origin")


def bar(share: float, kind: str = "local") -> Html:
    """A share of a whole, 0 to 1."""
    width = f"{100 * min(1.0, max(0.0, share)):.1f}"
    return element(
        "svg",
        element("rect", class_="track", width=100, height=6),
        element("rect", class_=kind, width=width, height=6),
        class_="bar",
        viewBox="0 0 100 6",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def ratio_line(found: Sequence[Interval]) -> Html:
    """The hit ratio over time; a gap where nothing was asked for."""
    step = WIDTH / max(1, len(found) - 1)
    commands: list[str] = []
    pen_down = False
    for i, interval in enumerate(found):
        ratio = interval.hit_ratio
        if ratio is not None:
            x, y = i * step, 2 + (1 - ratio) * (HEIGHT - 4)
            if not pen_down:  # a short stroke first, so that an interval between gaps is seen
                commands.append(f"M{max(0.0, x - step / 3):.1f} {y:.1f}")
            commands.append(f"L{x:.1f} {y:.1f}")
        pen_down = ratio is not None
    return _chart(
        "Hit ratio over the last hour",
        *(element("path", class_="grid", d=f"M0 {y}H{WIDTH}") for y in (HEIGHT // 2,)),
        element("path", class_="ratio", d="".join(commands)) if commands else "",
    )


def columns(found: Sequence[Interval]) -> tuple[Html, float]:
    """Bytes by source over time, stacked; and the rate that the top stands for, in bytes a second."""
    top = max((_total(each) / each.length_s for each in found), default=0.0)
    width = WIDTH / max(1, len(found))
    rectangles = []
    for i, each in enumerate(found):
        y = float(HEIGHT)
        for source, size in zip(SOURCES, _parts(each), strict=True):
            height = size / each.length_s / top * HEIGHT if top else 0.0
            if height >= 0.05:
                y -= height
                rectangles.append(
                    element(
                        "rect",
                        class_=source,
                        x=f"{i * width:.2f}",
                        y=f"{y:.2f}",
                        width=f"{width * 0.86:.2f}",
                        height=f"{height:.2f}",
                    )
                )
    return _chart("Bytes by source over the last hour", *rectangles), top


def _parts(interval: Interval) -> tuple[float, float, float]:
    return interval.hit_bytes, interval.peer_bytes, interval.origin_bytes


def _total(interval: Interval) -> float:
    return sum(_parts(interval))


def _chart(label: str, *inside: str) -> Html:
    return element(
        "svg",
        joined(inside),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )
