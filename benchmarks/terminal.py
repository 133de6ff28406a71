"""Results as tables on a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.compare import Change
from benchmarks.profile import Profile
from benchmarks.results import RowResult
from benchmarks.stats import Verdict

_COLOURS = {Verdict.WORSE: "red", Verdict.SAME: "dim", Verdict.BETTER: "green"}
_PIPE_WIDTH = 130


def console() -> Console:
    """As wide as the terminal; in a pipe, wide enough for the tables."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)


def number(value: float | None) -> str:
    """Three significant digits, without exponents."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def show_results(console: Console, results: Sequence[RowResult]) -> None:
    """One line per row."""
    table = Table("row", "value", "limit", "ratio", "target", "spread", "", highlight=False)
    for column in table.columns[1:6]:
        column.justify = "right"
    for each in results:
        table.add_row(
            each.row,
            f"{number(each.value)} {each.unit}",
            f"{number(each.limit)} ({each.limit_name})" if each.limit_name else "-",
            "-" if each.ratio is None else f"{each.ratio:.2f}",
            f"{each.target:.2f}",
            f"±{50 * each.spread['ratio']:.0f}%" if each.spread else "-",
            verdict_of(each),
        )
    console.print(table)
    for each in results:
        if each.error:
            text = f"{each.row}: {each.error.partition(chr(10))[0]}"
            console.print(text, markup=False, highlight=False, soft_wrap=True)


def show_times(console: Console, results: Sequence[RowResult], *, limit_s: float) -> None:
    """How long all rows took, and which took longer than they may (at full scale)."""
    total_s = sum(each.seconds for each in results)
    count = "1 row" if len(results) == 1 else f"{len(results)} rows"
    lines = [f"{count} in {minutes(total_s)}"]
    lines += [
        f"{each.row} took {each.seconds:.0f} s; it may take {each.budget_s:.0f}"
        for each in results
        if each.seconds > each.budget_s
    ]
    if total_s > limit_s:
        lines.append(f"a whole run may take {minutes(limit_s)}, this one was longer")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def minutes(seconds: float) -> str:
    """A time as people say it."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"


def verdict_of(result: RowResult) -> str:
    """One word for a row, coloured."""
    if result.error:
        return "[red]broken[/]"
    return "[green]ok[/]" if result.ok else "[yellow]misses[/]"


def show_profile(out: Console, name: str, found: Profile) -> None:
    """Two lists: functions of Python, and of the kernel and libraries."""
    out.print(f"{name}: {found.runs} runs", markup=False, highlight=False)
    for title, lines in (("Python", found.python), ("kernel and libraries", found.system)):
        table = Table("share", title, highlight=False)
        for text, share in lines:
            table.add_row(f"{100 * share:.1f}%", escape(text))
        if lines:
            out.print(table)


def show_changes(console: Console, changes: Sequence[Change]) -> None:
    """One line per row of two files."""
    table = Table("row", "before", "after", "change", "noise", "", highlight=False)
    for column in table.columns[1:5]:
        column.justify = "right"
    for each in changes:
        change = "-"
        if each.before and each.after is not None:
            change = f"{100 * (each.after / each.before - 1):+.0f}%"
        table.add_row(
            each.row,
            number(each.before),
            number(each.after),
            change,
            f"±{100 * each.noise:.0f}%",
            f"[{_COLOURS[each.verdict]}]{each.verdict.value}[/]",
        )
    console.print(table)
