"""`ls`, `stat`, `cat`: look at objects, and read them."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from hotshard.cli import output
from hotshard.cli.operating import JSON_OPTION
from hotshard.cli.session import Session
from hotshard.core.objects import ObjectInfo

if TYPE_CHECKING:
    from hotshard import Prefix

CHUNK_BYTES = 4 << 20


@click.command()
@click.argument("prefix")
@click.option("-l", "long", is_flag=True, help="Also size, time and version.")
@click.option("-r", "--recursive", is_flag=True, help="Everything below PREFIX.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines.")
@click.pass_obj
def ls(session: Session, prefix: str, long: bool, recursive: bool, as_json: bool) -> None:
    """List what begins with PREFIX."""
    with session.connect() as cache:
        entries = cache.list(prefix, recursive=recursive)
        if as_json:
            for entry in entries:
                output.print_json(_entry(entry), indent=None)
        elif long:
            for line in _long_lines(entries):
                output.print_line(line)
        else:
            for entry in entries:
                output.print_line(output.printable(entry.uri))


def _entry(entry: "ObjectInfo | Prefix") -> dict[str, Any]:
    return info_document(entry) if isinstance(entry, ObjectInfo) else {"prefix": entry.uri}


def _long_lines(entries: "Iterator[ObjectInfo | Prefix]") -> Iterator[str]:
    for entry in entries:
        name = output.printable(entry.uri)
        if isinstance(entry, ObjectInfo):
            when = output.moment(entry.mtime_ns)
            yield f"{output.size(entry.size):>12}  {when}  {name}  {entry.version}"
        else:
            yield f"{'-':>12}  {'':19}  {name}"


def info_document(info: ObjectInfo) -> dict[str, Any]:
    """An object as JSON shows it, everywhere."""
    return {
        "uri": info.uri,
        "size": info.size,
        "version": info.version,
        "mtime_ns": info.mtime_ns,
    }


@click.command()
@click.argument("uri")
@JSON_OPTION
@click.pass_obj
def stat(session: Session, uri: str, as_json: bool) -> None:
    """Show size, time and version of the object URI."""
    with session.connect() as cache:
        info = cache.stat(uri)
    if as_json:
        output.print_json(info_document(info))
        return
    output.print_facts(
        {
            "object": output.printable(info.uri),
            "size": f"{output.size(info.size)} ({info.size} bytes)",
            "modified": f"{output.moment(info.mtime_ns)} UTC",
            "version": info.version,
        }
    )


@click.command()
@click.argument("uri")
@click.option("--offset", type=click.IntRange(min=0), default=0, help="Where to begin.")
@click.option("--length", type=click.IntRange(min=0), help="How many bytes; default: to the end.")
@click.pass_obj
def cat(session: Session, uri: str, offset: int, length: int | None) -> None:
    """Write the bytes of the object URI to stdout."""
    with session.connect() as cache, cache.open(uri, buffering=0) as source:
        end = source.size if length is None else min(source.size, offset + length)
        buffer = memoryview(bytearray(max(0, min(CHUNK_BYTES, end - offset))))
        while offset < end:
            count = source.readinto_at(buffer[: end - offset], offset)
            if not count:
                break
            output.write_all(sys.stdout.buffer, buffer[:count])
            offset += count
        sys.stdout.buffer.flush()
