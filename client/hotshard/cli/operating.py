"""`pin`, `unpin`, `evict`, `status`, `explain`: what an operator asks of a server."""

import click

from hotshard.cli import output
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


@click.command(short_help="Drop an object or a prefix from the cache.")
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


@click.command(short_help="Say what the server knows of an object.")
@click.argument("uri")
@JSON_OPTION
@click.pass_obj
def explain(session: Session, uri: str, as_json: bool) -> None:
    """Say what the server knows of the object URI: version, shards, why the last miss was one."""
    from google.protobuf.json_format import MessageToDict

    with session.operator() as operator:
        found = operator.explain(uri)
    if as_json:
        output.print_json(
            MessageToDict(
                found, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
        )
        return
    output.print_facts(
        {
            "object": output.printable(found.object.uri),
            "version": found.object.version,
            "size": output.size(found.object.size_bytes),
            "modified": output.moment(found.object.mtime_ns),
            "origin": found.origin,
            "metadata": f"{output.duration(found.metadata_age_s)} old",
            "lease": output.duration(found.lease_s),
            "last miss": found.last_miss or "none",
        }
    )
    rows = [
        (
            str(shard.index),
            shard.state,
            output.size(shard.size_bytes),
            output.size(shard.present_bytes),
            "yes" if shard.pinned else "no",
            "yes" if shard.verified else "on next use",
            shard.path,
        )
        for shard in found.shards
    ]
    output.print_table(
        ("shard", "state", "size", "present", "pinned", "verified", "file"),
        rows,
        right=("shard", "size", "present"),
    )


@click.command()
@click.option("--counters", is_flag=True, help="Also every counter of the server.")
@JSON_OPTION
@click.pass_obj
def status(session: Session, counters: bool, as_json: bool) -> None:
    """Show the server: origins, disks, what is cached."""
    with session.connect() as cache:
        found = cache.status()
    if as_json:
        output.print_json(output.plain(found))
        return
    output.print_facts(
        {
            "node": found.node_id,
            "version": found.version,
            "up": output.duration(found.uptime_s),
            "ready": "yes" if found.ready else "no",
            "origins": ", ".join(map(output.printable, found.origins)) or "none",
        }
    )
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
    output.print_table(
        ("dataset", "shards", "cached"),
        [
            (output.printable(dataset.name), str(dataset.shards), output.size(dataset.bytes))
            for dataset in found.datasets
        ],
        right=("shards", "cached"),
    )
    if counters:
        output.print_table(
            ("counter", "value"),
            [(name, f"{value:g}") for name, value in sorted(found.counters.items())],
            right=("value",),
        )
