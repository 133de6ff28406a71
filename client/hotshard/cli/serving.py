"""`hotshard serve` and `hotshard config check`: both become the server's own program.

The client never imports the server; it runs `python -m cache_server` with what was asked, in place of this
process, so that signals, exit code and process id are the server's.
"""

import importlib.util
import os
import sys

import click

from hotshard.cli.exits import Failure

SERVER_NEEDS = ("cache_server", "aiobotocore", "pydantic", "uvloop", "yaml")


@click.command()
@click.option("--config", metavar="FILE", help="The YAML configuration file.")
@click.option(
    "--origin",
    metavar="URI",
    multiple=True,
    help="Serve what lies below s3://bucket/prefix/ or file:///dir/. May be repeated.",
)
@click.option("--cache-dir", metavar="DIR", multiple=True, help="Keep data there. May be repeated.")
@click.option("--socket", metavar="PATH", help="The socket for processes of this node.")
@click.option("--grpc-listen", metavar="HOST:PORT", help="The gRPC service.")
@click.option("--admin-listen", metavar="HOST:PORT", help="Metrics, status and probes.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--log-format", type=click.Choice(["text", "json"]))
def serve(**options: str | tuple[str, ...] | None) -> None:
    """Run a cache server until SIGTERM or Ctrl-C.

    No AWS is needed to try it: `hotshard serve --origin file:///data/ --cache-dir /mnt/nvme/hotshard`.
    Every key of the configuration can also be set by a variable: see docs/CONFIGURATION.md.
    """
    arguments: list[str] = []
    for name, given in options.items():
        for value in (given,) if isinstance(given, str) else given or ():
            arguments += [f"--{name.replace('_', '-')}", value]
    _become_server(arguments)


@click.group(no_args_is_help=False)
def config() -> None:
    """Look at a configuration."""


@config.command()
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Check FILE and the HOTSHARD_* variables; every mistake is reported at once."""
    _become_server(["--check", *(["--config", file] if file else [])])


def _become_server(arguments: list[str]) -> None:
    missing = [name for name in SERVER_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(
            f"the server is not installed ({', '.join(missing)})", "pip install 'hotshard[server]'"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "cache_server", *arguments])  # noqa: S606
