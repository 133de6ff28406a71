"""`python -m benchmarks`: list, run, compare, report, table, load, data, profile.

Exit codes: 0 all well; 1 a row broke (crashed, or read wrong bytes), or `compare` found one worse;
2 the command line is wrong; 3 every row was measured, but one is under its target (not with --no-gate).
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from functools import partial

import click

from benchmarks import markdown, report, results, terminal
from benchmarks.bench import SEED, Bench, Scale
from benchmarks.compare import compare
from benchmarks.load.command import run_load, write_data
from benchmarks.profile import profile
from benchmarks.results import BenchError, RowResult
from benchmarks.rows import CATALOGUE, only, select
from benchmarks.runner import run_rows
from benchmarks.sabotage import Sabotage
from benchmarks.simulation import report as simulation
from benchmarks.simulation.model import Cluster
from benchmarks.stats import Verdict

BROKEN, UNDER_TARGET = 1, 3
WHOLE_RUN_S = 25 * 60.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Benchmarks of hotshard: each row beside the limit of the machine, measured in the same run."""


main.add_command(run_load)
main.add_command(write_data)


@main.command("list")
def list_rows() -> None:
    """Show the rows, with the time each may take."""
    total_s = sum(row.budget_s for row in CATALOGUE)
    click.echo(f"{len(CATALOGUE)} rows, which may take {total_s / 60:.0f} minutes together")
    for row in CATALOGUE:
        may = f"ratio to the limit >= {row.target}, {row.budget_s:.0f} s"
        click.echo(f"{row.name:26} {row.title} ({may})")


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="ROW|SUITE|all|quick...")
@click.option("--json", "json_path", type=click.Path(dir_okay=False), help="Write results here.")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False),
    help="Where the data goes: on the disk to be measured. Default: the temp directory.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Timed runs of each side.")
@click.option("--seed", type=int, default=SEED, show_default=True)
@click.option("--scale", type=click.Choice([each.value for each in Scale]), help="Sizes.")
@click.option(
    "--gate/--no-gate",
    default=None,
    help="Whether a row under its target is exit code 3. Default: yes, but no with 'quick'.",
)
@click.option(
    "--sabotage",
    type=click.Choice([each.value for each in Sabotage]),
    default=Sabotage.NONE.value,
    help="Spoil our side on purpose: every row must fail.",
)
def run(
    names: tuple[str, ...],
    *,
    json_path: str | None,
    directory: str | None,
    rounds: int | None,
    seed: int,
    scale: str | None,
    gate: bool | None,
    sabotage: str,
) -> None:
    """Run rows. A suite is the first part of row names: local, origin, scale."""
    quick = "quick" in names
    console = terminal.console()
    try:
        rows = select(names)
        with tempfile.TemporaryDirectory(prefix="hotshard-bench-", dir=directory) as work:
            size = Scale(scale) if scale else Scale.QUICK if quick else Scale.FULL
            bench = Bench(work, size, Sabotage(sabotage), seed)
            taken = run_rows(
                rows,
                bench,
                rounds=rounds,
                progress=_progress,
                keep=partial(_write, json_path),
            )
    except BenchError as error:
        raise click.UsageError(str(error)) from error
    terminal.show_results(console, taken)
    terminal.show_times(console, taken, limit_s=WHOLE_RUN_S)
    sys.exit(_exit_code(taken, gate=not quick if gate is None else gate))


@main.command("compare")
@click.argument("before", type=click.Path(exists=True, dir_okay=False))
@click.argument("after", type=click.Path(exists=True, dir_okay=False))
def compare_files(before: str, after: str) -> None:
    """Compare two result files; exit code 1 if a row got worse beyond the noise."""
    changes = compare(_load(before), _load(after))
    if not changes:
        raise click.UsageError("the two files have no row in common")
    terminal.show_changes(terminal.console(), changes)
    sys.exit(BROKEN if any(each.verdict is Verdict.WORSE for each in changes) else 0)


@main.command("report")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", "-o", default="report.html", show_default=True, help="The HTML file.")
def write_report(files: tuple[str, ...], output: str) -> None:
    """Write the results of one or more files as one HTML page with plots."""
    page = report.html([row for path in files for row in _load(path)], _notes())
    with open(output, "w", encoding="utf-8") as file:
        file.write(page)
    click.echo(output)


@main.command("table")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False),
    help="A document: put the tables between its marks.",
)
def write_table(files: tuple[str, ...], into: str | None) -> None:
    """Write the results as Markdown tables, rows that miss their target first."""
    try:
        text = markdown.figures([row for path in files for row in _load(path)], _notes())
        if into is None:
            click.echo(text)
            return
        with open(into, encoding="utf-8") as file:
            document = markdown.replaced(file.read(), text)
    except BenchError as error:
        raise click.UsageError(str(error)) from error
    with open(into, "w", encoding="utf-8") as file:
        file.write(document)
    click.echo(into)


@main.command("profile")
@click.argument("name", metavar="ROW")
@click.option("--seconds", type=click.FloatRange(1, 600), default=10.0, show_default=True)
@click.option("--scale", type=click.Choice([each.value for each in Scale]), default="full")
@click.option("--directory", type=click.Path(exists=True, file_okay=False), help="As of run.")
def profile_row(name: str, *, seconds: float, scale: str, directory: str | None) -> None:
    """Show where the CPU goes while our side of a row runs, in Python and in the kernel."""
    try:
        row = only([name])
        with tempfile.TemporaryDirectory(prefix="hotshard-bench-", dir=directory) as work:
            found = profile(row, Bench(work, Scale(scale)), seconds=seconds)
    except BenchError as error:
        raise click.UsageError(str(error)) from error
    terminal.show_profile(terminal.console(), name, found)


@main.command("simulate")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False),
    default="docs",
    show_default=True,
    help="Where SIMULATION.md and simulation.svg go.",
)
@click.option("--nodes", type=click.IntRange(min=20), default=Cluster().nodes, show_default=True)
@click.option(
    "--shards", type=click.IntRange(min=2000), default=Cluster().shards, show_default=True
)
def run_simulation(into: str, nodes: int, shards: int) -> None:
    """Work out a cluster that no test machine holds, with the cache's own placement and policy."""
    found = simulation.simulate(Cluster(nodes=nodes, shards=shards))
    for name, text in (
        ("SIMULATION.md", simulation.page(found, simulation.Hardware())),
        ("simulation.svg", simulation.plot(found)),
    ):
        path = os.path.join(into, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        click.echo(path)


def _load(path: str) -> list[RowResult]:
    try:
        with open(path, encoding="utf-8") as file:
            return results.load(file.read(), source=path)
    except BenchError as error:
        raise click.UsageError(str(error)) from error


def _notes() -> dict[str, str]:
    """Why rows miss their target where they do."""
    return {row.name: row.below for row in CATALOGUE}


def _write(path: str | None, taken: Sequence[RowResult]) -> None:
    """Put the results so far into the file, whole or not at all."""
    if path is None:
        return
    fresh = f"{path}.new"
    with open(fresh, "w", encoding="utf-8") as file:
        file.write(results.dump(taken))
    os.replace(fresh, path)


def _progress(line: str) -> None:
    click.echo(line, err=True)


def _exit_code(taken: list[RowResult], *, gate: bool) -> int:
    if any(each.error for each in taken):
        return BROKEN
    return UNDER_TARGET if gate and not all(each.ok for each in taken) else 0


if __name__ == "__main__":
    main()
