"""`pin`, `unpin`, `evict`, `status`: what an operator asks of a server."""

import click

from hotshard.calls import Money, ServerStatus
from hotshard.cli import cluster, output
from hotshard.cli.session import Session

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("uri")
@JSON_OPTION
@click.pass_obj
def pin(session: Session, uri: str, as_json: bool) -> None:
    """Never evict URI, an object or a prefix. It is not loaded: see `warm`."""
    with session.operator() as operator:
        _print_pins(operator.pin(uri), as_json)


@click.command()
@click.argument("uri")
@JSON_OPTION
@click.pass_obj
def unpin(session: Session, uri: str, as_json: bool) -> None:
    """Take back `pin URI`."""
    with session.operator() as operator:
        _print_pins(operator.unpin(uri), as_json)


def _print_pins(pins: list[str], as_json: bool) -> None:
    if as_json:
        output.print_json({"pins": pins})
        return
    output.print_line(f"{len(pins)} pinned" + (":" if pins else ""))
    for uri in pins:
        output.print_line(f"  {output.printable(uri)}")


@click.command()
@click.argument("uri")
@click.option("--include-pinned", is_flag=True, help="Also what is pinned.")
@JSON_OPTION
@click.pass_obj
def evict(session: Session, uri: str, include_pinned: bool, as_json: bool) -> None:
    """Drop URI, an object or a prefix, from the cache. Files that readers hold open stay valid."""
    with session.operator() as operator:
        shards, freed_bytes = operator.evict(uri, include_pinned=include_pinned)
    if as_json:
        output.print_json({"shards": shards, "bytes": freed_bytes})
    else:
        output.print_line(f"evicted {shards} shards, {output.size(freed_bytes)}")


@click.command()
@click.option("--counters", is_flag=True, help="Also every counter of the server.")
@click.option("--alone", is_flag=True, help="Only this server, not the members of its cluster.")
@JSON_OPTION
@click.pass_obj
def status(session: Session, counters: bool, alone: bool, as_json: bool) -> None:
    """Show the server and what it caches.

    Its origins, disks and datasets; and the cluster, if it is in one.
    """
    with session.connect() as cache:
        found = cache.status()
    everybody = None if alone or found.cluster is None else _everybody(session, found.cluster.grpc)
    if as_json:
        document = output.plain(found)
        if everybody is not None:
            document["cluster"] |= cluster.status_document(*everybody)
        output.print_json(document)
        return
    output.print_facts(
        {
            "node": found.node_id,
            "version": found.version,
            "up": output.duration(found.uptime_s),
            "ready": "yes" if found.ready else "no",
            "origins": ", ".join(map(output.printable, found.origins)) or "none",
            "saved": _saved(found.money if everybody is None else cluster.money(everybody[1])),
        }
    )
    if everybody is not None:
        cluster.print_status(*everybody)
    _print_disks(found)
    _print_datasets(found)
    if counters:
        output.print_table(
            ("counter", "value"),
            [(name, f"{value:g}") for name, value in sorted(found.counters.items())],
            right=("value",),
        )


def _print_disks(found: ServerStatus) -> None:
    output.print_table(
        ("cache dir", "state", "used", "capacity", "sealed", "partial", "detail"),
        [
            (
                disk.path,
                disk.state,
                output.size(disk.used_bytes),
                output.size(disk.capacity_bytes),
                str(disk.sealed_shards),
                output.size(disk.partial_bytes),
                disk.detail,
            )
            for disk in found.disks
        ],
        right=("used", "capacity", "sealed", "partial"),
    )


def _print_datasets(found: ServerStatus) -> None:
    output.print_table(
        ("dataset", "state", "shards", "cached", "streamed"),
        [
            (
                output.printable(dataset.name),
                dataset.state,
                str(dataset.shards),
                output.size(dataset.bytes),
                output.size(dataset.streamed_bytes),
            )
            for dataset in found.datasets
        ],
        right=("shards", "cached", "streamed"),
    )


def _saved(money: Money) -> str:
    """At least so much: see docs/OPERATIONS.md."""
    avoided = sorted(money.avoided_requests.items())
    fewer = [f"{count:,.0f} {verb}" for verb, count in avoided if count > 0]
    more = [f"{-count:,.0f} {verb}" for verb, count in avoided if count < 0]  # a node filling
    return (
        f"{output.dollars(money.saved_usd)} since the start (avoided: {', '.join(fewer) or 'nothing'},"
        f" {output.size(money.avoided_bytes)}{'; added: ' + ', '.join(more) if more else ''})"
    )


def _everybody(session: Session, grpc: str) -> "cluster.Everybody":
    with session.operator(grpc) as operator:
        members = operator.members()
    return members, cluster.statuses(members)
