"""`hotshard doctor`: is this node well, and if not, what mends it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from hotshard.cli import exits, output
from hotshard.cli.serving import SERVER_NEEDS
from hotshard.core.findings import Finding, Verdict, fail, skipped, worst

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotshard.cli.session import Session

SERVER_S = 120.0
MARKS = {Verdict.OK: "ok", Verdict.WARN: "warn", Verdict.FAIL: "FAIL", Verdict.SKIPPED: "-"}
STYLES = {
    Verdict.OK: "green",
    Verdict.WARN: "yellow",
    Verdict.FAIL: "bold red",
    Verdict.SKIPPED: "dim",
}


@click.command()
@click.option("--config", metavar="FILE", help="The server's configuration.")
@click.option("--origin", metavar="URI", multiple=True, help="As for `serve`.")
@click.option("--cache-dir", metavar="DIR", multiple=True, help="As for `serve`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(
    session: Session,
    config: str | None,
    origin: tuple[str, ...],
    cache_dir: tuple[str, ...],
    as_json: bool,
) -> int:
    """Check kernel, FUSE, socket, disks, origins with a real request, clock, members and limits.

    Run it where the server runs, with its configuration (in its pod: `kubectl exec`), whether or not it
    runs now. Nothing is changed. Exits 1 if something does not work; warnings do not count.
    """
    from hotshard.cli import machine

    findings = [machine.kernel(), *machine.fuse(), *machine.server(session.address)]
    findings += _of_server(config, origin, cache_dir)
    if as_json:
        output.print_json([finding.document() for finding in findings])
    else:
        _print(findings)
    return exits.FAILED if worst(findings) is Verdict.FAIL else exits.OK


def _of_server(
    config: str | None, origins: Sequence[str], cache_dirs: Sequence[str]
) -> list[Finding]:
    """What the server's own checks find; the client never imports the server."""
    if any(importlib.util.find_spec(name) is None for name in SERVER_NEEDS):
        why = "the server is not installed here: pip install 'hotshard[server]'"
        return [skipped("disks, origins, members, limits", why)]
    command = [sys.executable, "-m", "cache_server.doctor"]
    command += ["--config", config] if config else []
    for uri in origins:
        command += ["--origin", uri]
    for path in cache_dirs:
        command += ["--cache-dir", path]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, timeout=SERVER_S, check=False
        )
    except subprocess.TimeoutExpired:
        return [fail("server's checks", f"no end within {SERVER_S:.0f} s", "please report this")]
    try:
        return [Finding.of(document) for document in json.loads(done.stdout)]
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2]
        return [fail("server's checks", f"they failed: {last[:300]}", "please report this")]


def _print(findings: Sequence[Finding]) -> None:
    if output.on_terminal(sys.stdout):
        _print_rich(findings)
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            mark = MARKS[finding.verdict].ljust(4)
            fact = output.printable(finding.fact)
            output.print_line(f"{mark}  {finding.check.ljust(width)}  {fact}")
            if finding.remedy:
                output.print_line(f"      {' ' * width}  -> {output.printable(finding.remedy)}")
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    output.print_line(
        f"{counts[Verdict.OK]} well, {counts[Verdict.WARN]} to look at, {counts[Verdict.FAIL]} broken"
    )


def _print_rich(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", ratio=2)
    table.add_column(overflow="fold", ratio=5)
    for finding in findings:
        text = Text(output.printable(finding.fact))
        if finding.remedy:
            text.append(f"\n→ {output.printable(finding.remedy)}", "bold")
        style = STYLES[finding.verdict]
        table.add_row(
            Text(MARKS[finding.verdict], style), Text(output.printable(finding.check)), text
        )
    Console(file=sys.stdout).print(table)
