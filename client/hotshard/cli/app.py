"""The command line: global options, the list of commands, and how every one of them ends.

A command returns None, or an exit code from `exits`. It raises HotshardError or Failure for everything
that goes wrong; `run` turns those into one line on stderr and a code. A reader that goes away (`| head`)
and Ctrl-C end a command quietly.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from hotshard.cli import exits
from hotshard.cli.session import Session
from hotshard.core.errors import HotshardError

COMMANDS = {
    "serve": ("serving:serve", "Run a cache server until SIGTERM or Ctrl-C."),
    "demo": ("demo:demo", "Show the main job with a real S3 server."),
    "ls": ("reading:ls", "List what begins with PREFIX."),
    "stat": ("reading:stat", "Show size, time and version of the object URI."),
    "cat": ("reading:cat", "Write the bytes of the object URI to stdout."),
    "cp": ("copying:cp", "Copy an object or a prefix to local files."),
    "prefetch": ("warming:prefetch", "Start to load objects and prefixes; return at once."),
    "warm": ("warming:warm", "Load objects and prefixes; wait until all is resident."),
    "mount": ("mounting:mount", "Make a prefix a directory."),
    "umount": ("mounting:umount", "Undo a mount."),
    "mount-upgrade": ("mounting:mount_upgrade", "Serve a mount with the code installed now."),
    "csi": ("container_storage:csi", "The CSI driver of a Kubernetes node, and its keeper."),
    "pin": ("operating:pin", "Never evict URI, an object or a prefix."),
    "unpin": ("operating:unpin", "Take back `pin URI`."),
    "evict": ("operating:evict", "Drop an object or a prefix from the cache."),
    "status": ("operating:status", "Show the server and what it caches."),
    "top": ("top:top", "Watch the cluster: nodes, hit ratio, bytes, datasets."),
    "doctor": ("doctor:doctor", "Check this node, and say how to mend what is wrong."),
    "members": ("cluster:members", "List the members of the cluster."),
    "explain": ("explaining:explain", "Say what the server knows of an object."),
    "config": ("serving:config", "Look at a configuration."),
}
"""Name -> (module:function, what the list of commands says), in the order of their importance."""


def command_of(name: str) -> click.Command:
    """Load one of them."""
    module, _, function = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(import_module(f"hotshard.cli.{module}"), function)
    return command


class Commands(click.Group):
    """Loads a command when it is wanted: none for the list of them, one to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """One of them; None: there is none of that name."""
        return command_of(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of them in the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=Commands,
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
@click.version_option(package_name="hotshard", prog_name="hotshard")
@click.pass_context
def cli(context: click.Context, address: str | None, grpc_address: str | None) -> None:
    """Read training data through the cache on this node.

    Objects are named as the origin knows them: s3://bucket/key or file:///dir/name. A name that ends in
    "/" is a prefix.
    """
    context.obj = Session(address=address, grpc_address=grpc_address)


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
