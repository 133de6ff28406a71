"""`prefetch` and `warm`: have objects in the cache before anybody asks for them.

`warm` is for job scripts: it says 0 only when every byte that was asked for is resident.
"""

from typing import TYPE_CHECKING

import click

from hotshard.cli import exits, output
from hotshard.cli.operating import JSON_OPTION
from hotshard.cli.session import Session

if TYPE_CHECKING:
    from hotshard import WarmProgress

FAILURES_SHOWN = 20


@click.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@JSON_OPTION
@click.pass_obj
def prefetch(session: Session, uris: tuple[str, ...], as_json: bool) -> None:
    """Start to load objects and prefixes, and return at once."""
    with session.connect() as cache:
        job_ids = cache.prefetch(uris)
    if as_json:
        output.print_json({"job_ids": list(job_ids)})
    else:
        output.print_line(f"started {', '.join(job_ids)}")


@click.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@click.option("--allow-partial", is_flag=True, help="Exit 0 even if something could not be loaded.")
@JSON_OPTION
@click.pass_obj
def warm(session: Session, uris: tuple[str, ...], allow_partial: bool, as_json: bool) -> int:
    """Load objects and prefixes, and wait until everything is resident.

    Exits with 0 only if all of it is, with 3 if some is not. The loading goes on if the command is
    interrupted.
    """
    with session.connect() as cache, output.progress_bar() as bar:
        task = bar.add_task("warm", total=None, note="listing")

        def show(now: "WarmProgress") -> None:
            bar.update(
                task,
                completed=now.resident_bytes,
                total=None if now.listing else now.planned_bytes,
                note=_counted(now),
            )

        found = cache.warm(uris, progress=show)
    if as_json:
        output.print_json({**output.plain(found), "complete": found.complete})
    else:
        _print_outcome(found)
    return exits.OK if found.complete or allow_partial else exits.PARTIAL


def _counted(now: "WarmProgress") -> str:
    failed = f", {now.failed_objects} failed" if now.failed_objects else ""
    return f"{now.resident_objects}/{now.planned_objects} objects{failed}"


def _print_outcome(found: "WarmProgress") -> None:
    share = 100.0 * found.resident_bytes / found.planned_bytes if found.planned_bytes else 100.0
    if not found.complete:
        share = min(share, 99.9)  # never look whole when something is missing
    output.print_line(
        f"{_counted(found)}, {output.size(found.resident_bytes)} of"
        f" {output.size(found.planned_bytes)} resident ({share:.1f}%)"
    )
    for failure in found.failures[:FAILURES_SHOWN]:
        output.note(f"failed: {output.printable(failure.uri)}: {failure}")
    unnamed = found.failed_objects - min(FAILURES_SHOWN, len(found.failures))
    if unnamed > 0:
        output.note(f"failed: {unnamed} more")
