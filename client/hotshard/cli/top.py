"""`hotshard top`: what the cluster is doing, live in a terminal; for scripts with --once or --json."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from hotshard.cli import output
from hotshard.cli.activity import Activity, Node, Watch
from hotshard.core.errors import HotshardError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from hotshard.cli.session import Session

BLOCKS = "▁▂▃▄▅▆▇█"
HISTORY = 60
FIRST_LOOK_S = 1.0
DATASETS_SHOWN = 6
BAR_CELLS = 12


@click.command()
@click.option(
    "--every",
    "period_s",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--once", is_flag=True, help="One look, over a second, and end.")
@click.option("--json", "as_json", is_flag=True, help="JSON, one line for each look.")
@click.pass_obj
def top(session: Session, period_s: float, once: bool, as_json: bool) -> None:
    """Watch what the nodes are doing. `q` or Ctrl-C ends it.

    Into a pipe it prints one table and ends, as with --once.
    """
    watch = Watch(session)
    watch.look()  # rates need two; also: who cannot be reached is told before the screen is taken
    if as_json or once or not output.on_terminal(sys.stdout):
        _print_looks(watch, FIRST_LOOK_S if once or not as_json else period_s, as_json, once)
        return
    _show(watch, period_s)


def _print_looks(watch: Watch, period_s: float, as_json: bool, once: bool) -> None:
    while True:
        time.sleep(period_s)
        activity = watch.look()
        if not as_json:
            _print_table(activity)
            return
        output.print_json(activity.document(), indent=None)
        sys.stdout.flush()
        if once:
            return


COLUMNS = ("node", "zone", "state", "up", "hits", "served", "peers", "origin", "used", "saved")
RIGHT = ("up", "hits", "served", "peers", "origin", "used", "saved")


def _row(node: Node) -> tuple[str, ...]:
    look, status, speed = node.look, node.look.status, node.speed
    name = look.id[:8]
    if status is None:
        return name, look.zone or "-", "no answer", *("-" for _ in RIGHT)
    used = sum(disk.used_bytes for disk in status.disks)
    return (
        name,
        look.zone or "-",
        look.state,
        output.duration(status.uptime_s),
        _percent(speed.hit_ratio),
        f"{output.size(speed.asked)}/s",
        f"{output.size(speed.peer)}/s",
        f"{output.size(speed.origin)}/s",
        output.size(used),
        output.dollars(status.money.saved_usd),
    )


def _print_table(activity: Activity) -> None:
    output.print_line(_headline(activity))
    output.print_table(COLUMNS, [_row(node) for node in activity.nodes], right=RIGHT)
    rows = [(output.printable(n), output.size(b)) for n, b in activity.datasets(DATASETS_SHOWN)]
    if rows:
        output.print_table(("dataset", "cached"), rows, right=("cached",))


def _headline(activity: Activity) -> str:
    ready = sum(node.look.state == "ready" for node in activity.nodes)
    speed = activity.speed
    return (
        f"{output.printable(activity.name) or 'one node'}: {ready} of {len(activity.nodes)} ready,"
        f" hits {_percent(speed.hit_ratio)}, served {output.size(speed.asked)}/s,"
        f" from origins {output.size(speed.origin)}/s, saved {output.dollars(activity.saved_usd)}"
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


# -- the screen ------------------------------------------------------------------------------------

_INTERRUPT = "\x03"


def _show(watch: Watch, period_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    ratios: deque[float | None] = deque(maxlen=HISTORY)
    served: deque[float | None] = deque(maxlen=HISTORY)
    activity, trouble = None, ""
    console = Console(file=sys.stdout)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        wait_s = FIRST_LOOK_S
        live.update(_message("looking ..."), refresh=True)
        while not (key := pressed("qQ" + _INTERRUPT, wait_s)):
            wait_s = period_s
            try:
                activity, trouble = watch.look(), ""
            except HotshardError as error:  # it may come back
                trouble = str(error)
            else:
                ratios.append(activity.speed.hit_ratio)
                served.append(activity.speed.asked)
            if activity is not None:
                live.update(_screen(activity, ratios, served, trouble), refresh=True)
            else:
                live.update(_message(trouble), refresh=True)
    if key == _INTERRUPT:
        raise KeyboardInterrupt


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits for one of some keys; which it was, or none."""
    if not sys.stdin.isatty():

        def sleep(_keys: str, seconds: float) -> str:
            time.sleep(seconds)
            return ""

        yield sleep
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed(keys: str, seconds: float) -> str:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([fd], [], [], left)[0]:
                data = os.read(fd, 64).decode(errors="ignore")
                if not data:
                    return keys[0]  # nobody is there any more
                if found := [key for key in data if key in keys]:
                    return found[0]
        return ""

    try:
        tty.setcbreak(fd)
        # Ctrl-C is a key like others: as a signal it may be lost where an exception cannot get out.
        ours = termios.tcgetattr(fd)
        ours[6][termios.VINTR] = b"\0"
        termios.tcsetattr(fd, termios.TCSADRAIN, ours)
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _screen(
    activity: Activity,
    ratios: Sequence[float | None],
    served: Sequence[float | None],
    trouble: str,
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    top_rate = max((rate for rate in served if rate), default=0.0)
    shares = [rate / top_rate if rate and top_rate else 0.0 for rate in served]
    lines = [
        Text.assemble((_headline(activity), "bold")),
        Text.assemble(("hit ratio  ", "dim"), (_sparkline(ratios), "green")),
        Text.assemble(
            ("served     ", "dim"),
            (_sparkline(shares), "cyan"),
            (f"  up to {output.size(top_rate)}/s", "dim"),
        ),
    ]
    if trouble:
        lines.append(Text(output.printable(trouble), "bold red"))
    help_line = Text("q ends", "dim")
    return Group(*lines, _nodes_table(activity), _datasets_table(activity), help_line)


def _nodes_table(activity: Activity) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=True)
    for node in activity.nodes:
        style = {"ready": "", "no answer": "bold red"}.get(_row(node)[2], "yellow")
        table.add_row(*(Text(cell) for cell in _row(node)), style=style)
    return table


def _datasets_table(activity: Activity) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    capacity = sum(d.capacity_bytes for status in activity.said for d in status.disks)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("dataset", overflow="ellipsis", no_wrap=True)
    table.add_column("cached", justify="right")
    table.add_column("of the capacity")
    for name, size in activity.datasets(DATASETS_SHOWN):
        share = size / capacity if capacity else 0.0
        cells = round(share * BAR_CELLS)
        table.add_row(
            Text(output.printable(name)),
            output.size(size),
            Text("█" * cells + "░" * (BAR_CELLS - cells), "green"),
        )
    return table


def _sparkline(shares: Sequence[float | None]) -> str:
    """Shares of one as blocks of rising height; what is not known is a gap."""
    return "".join(
        " " if share is None else BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]
        for share in shares
    )


def _message(text: str) -> RenderableType:
    from rich.text import Text

    return Text(output.printable(text), "dim")
