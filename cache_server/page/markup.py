"""HTML, escaped unless it was made here: no name of an object or a host becomes markup. Pure."""

from collections.abc import Iterable
from html import escape

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_VOID = {"meta", "link", "rect", "path", "line", "br"}


class Html(str):
    """Text that is markup; any other text is escaped when it is put into an element."""

    __slots__ = ()


Content = str | int | None


def element(name: str, /, *children: Content, **attributes: str | float | None) -> Html:
    """An element. An attribute `class_` is `class`; `stroke_width` is `stroke-width`; None is left out."""
    inside = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{inside}>" if name in {"meta", "link", "br"} else f"<{name}{inside}/>")
    return Html(f"<{name}{inside}>{joined(children)}</{name}>")


def joined(parts: Iterable[Content]) -> Html:
    """Parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else escape(_text(part)) for part in parts))


def _text(part: Content) -> str:
    return "" if part is None else str(part)


def size(count: float) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    digits = 0 if unit == "B" or abs(value) >= 100 else 1
    return f"{value:.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for people, one or two units."""
    if seconds < 1:
        return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float | None) -> str:
    """A share for people; what is not known is a dash."""
    if share is None:
        return "–"  # noqa: RUF001 - a dash, for people
    return f"{100 * share:.{0 if share in (0, 1) else 1}f}%"


def money(usd: float) -> str:
    """US dollars: cents above one, as many digits as are worth reading below."""
    digits = 2 if abs(usd) >= 1 or abs(usd) < 0.00005 else 4
    usd = round(usd, digits) or 0.0
    return f"{'-' if usd < 0 else ''}${abs(usd):,.{digits}f}"


def count(number: float) -> str:
    """A number of things."""
    value = abs(number)
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{number / limit * (10 if unit == 'k' else 1):.1f} {unit}"
    return f"{number:.0f}"
