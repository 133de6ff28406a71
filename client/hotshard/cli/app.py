"""The command line: global options, the list of commands, and how every one of them ends.

A command returns None, or an exit code from `exits`. It raises HotshardError or Failure for everything
that goes wrong; `run` turns those into one line on stderr and a code. A reader that goes away (`| head`)
and Ctrl-C end a command quietly.
"""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import click

from hotshard.cli import (
    cluster,
    container_storage,
    copying,
    doctor,
    exits,
    explaining,
    mounting,
    operating,
    reading,
    serving,
    top,
    warming,
)
from hotshard.cli.demo import demo
from hotshard.cli.session import Session
from hotshard.core.errors import HotshardError


class InOrder(click.Group):
    """Lists the commands in the order they were added, which is the order of their importance."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Their names."""
        return list(self.commands)


@click.group(
    cls=InOrder,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=exits.HELP,
)
@click.option(
    "--address",
    metavar="ADDRESS",
    help="The cache server: unix:///path of its local socket, or host:port. Without it"
    " HOTSHARD_ADDRESS, then the local socket of this node.",
)
@click.option(
    "--grpc-address",
    metavar="HOST:PORT",
    help="Where pin, unpin, evict and explain find the server when ADDRESS is a local socket."
    " Default: 127.0.0.1:7070.",
)
@click.version_option(version("hotshard"), prog_name="hotshard")
@click.pass_context
def cli(context: click.Context, address: str | None, grpc_address: str | None) -> None:
    """Read training data through the cache on this node.

    Objects are named as the origin knows them: s3://bucket/key or file:///dir/name. A name that ends in
    "/" is a prefix.
    """
    context.obj = Session(address=address, grpc_address=grpc_address)


for command in (
    serving.serve,
    demo,
    reading.ls,
    reading.stat,
    reading.cat,
    copying.cp,
    warming.prefetch,
    warming.warm,
    mounting.mount,
    mounting.umount,
    mounting.mount_upgrade,
    container_storage.csi,
    operating.pin,
    operating.unpin,
    operating.evict,
    operating.status,
    top.top,
    doctor.doctor,
    cluster.members,
    explaining.explain,
    serving.config,
):
    cli.add_command(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        code = cli.main(list(arguments) or ["--help"], prog_name="hotshard", standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        return exits.INTERRUPTED
    except BrokenPipeError:  # from our flush; click ends one in a command the same way
        return _reader_gone()
    except (click.ClickException, exits.Failure, HotshardError, OSError) as error:
        failure = _failure_of(error)
        sys.stderr.write(failure.line + "\n")
        return failure.code
    return code if isinstance(code, int) else exits.OK


def _failure_of(error: Exception) -> exits.Failure:
    if isinstance(error, exits.Failure):
        return error
    if isinstance(error, HotshardError):
        return exits.failure_of(error)
    if isinstance(error, click.ClickException):
        return _usage(error)
    return exits.Failure(_described(error) if isinstance(error, OSError) else str(error))


def _usage(error: click.ClickException) -> exits.Failure:
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context is not None else "hotshard"
    what = error.format_message().rstrip(".")
    return exits.Failure(what, f"see `{command} --help`", exits.USAGE)


def _described(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name]
    return ": ".join([*names, error.strerror or str(error)])


def _reader_gone() -> int:
    # The interpreter flushes stdout once more at exit and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.FAILED
