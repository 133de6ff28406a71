"""What commands print: tables for people, plain columns for pipes, JSON for programs.

On a terminal, rich draws tables and colours. Into a pipe the same rows go out as aligned text without
one escape code. Nothing is cut to the width of a window that is not there.
"""

import dataclasses
import errno
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import RawIOBase
from typing import IO, Any, BinaryIO

from hotshard.core.errors import HotshardError

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes for people: `512 B`, `1.50 MiB`."""
    value = float(count)
    for unit in _UNITS:
        if abs(value) < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"


def dollars(usd: float) -> str:
    """Money for people: cents above a dollar, as many digits as are worth reading below."""
    digits = 2 if abs(usd) >= 1 or abs(usd) < 0.00005 else 4
    usd = round(usd, digits) or 0.0
    return f"{'-' if usd < 0 else ''}${abs(usd):,.{digits}f}"


def moment(time_ns: int) -> str:
    """A time of the origin as people write it, in UTC."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """Seconds for people: `4.2 s`, `3 min 20 s`, `5 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def printable(name: str) -> str:
    """A name with its control characters escaped: no key of a bucket drives anybody's terminal."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def plain(value: object) -> Any:
    """A dataclass as what JSON knows; an error becomes its name, uri and message."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, HotshardError):
        return {"error": type(value).__name__, "uri": value.uri, "message": value.message}
    return value


def on_terminal(stream: IO[str]) -> bool:
    """Whether a person is looking."""
    return stream.isatty()


def print_json(document: object, *, indent: int | None = 2) -> None:
    """One JSON document; `indent=None` puts it on a line of its own (JSON lines)."""
    sys.stdout.write(json.dumps(document, indent=indent, ensure_ascii=False) + "\n")


def print_line(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """A line beside the result: to stderr, so that pipes stay clean."""
    sys.stderr.write(text + "\n")


def write_all(target: RawIOBase | BinaryIO, data: memoryview) -> None:
    """Write every byte; a raw file, which stdout is under PYTHONUNBUFFERED, may take fewer at a time."""
    while data:
        count = target.write(data)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, "it is not blocking, and full")
        data = data[count:]


def print_facts(facts: Mapping[str, str]) -> None:
    """Names and values, one pair a line."""
    for line in columns_of([(f"{name}:", value) for name, value in facts.items()], (False, False)):
        print_line(line)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    right: Sequence[str] = (),
) -> None:
    """Rows under a header; the columns named in `right` are aligned to the right."""
    if on_terminal(sys.stdout):
        _print_rich(columns, rows, title, right)
        return
    if title:
        print_line(title)
    aligned = [name in right for name in columns]
    for line in columns_of([columns, *rows], aligned):
        print_line(line)


def columns_of(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows as lines of aligned text, two spaces between the columns."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: Sequence[str]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, highlight=False)
    for name in columns:
        table.add_column(
            name, justify="right" if name in right else "left", overflow="fold", no_wrap=False
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # keys may hold what rich takes for markup
    Console(file=sys.stdout).print(table)


def progress_bar(*, transient: bool = False) -> Any:
    """A progress display on stderr: bytes, rate and time left; silent when nobody looks."""
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[note]}"),
        console=Console(file=sys.stderr),
        disable=not on_terminal(sys.stderr),
        transient=transient,
    )
