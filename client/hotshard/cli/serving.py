"""`hotshard serve` and `hotshard config check`: both start the server's own program.

The client never imports the server; it runs `python -m cache_server` with what was asked. `serve`
replaces this process, so that signals, exit code and process id are the server's.
"""

import importlib.util
import os
import sys

import click

from hotshard.cli.exits import Failure


@click.command()
@click.option("--config", "config_path", metavar="FILE", help="The YAML configuration file.")
@click.option(
    "--origin", "origins", multiple=True, metavar="URI", help="A prefix to serve; may be repeated."
)
@click.option(
    "--cache-dir",
    "cache_dirs",
    multiple=True,
    metavar="DIR",
    help="Where to cache; may be repeated.",
)
@click.option("--listen", metavar="HOST:PORT", help="The gRPC address.")
@click.option("--admin-listen", metavar="HOST:PORT", help="The address of /metrics and /healthz.")
@click.option("--local-socket", metavar="PATH", help="The socket for processes of this node.")
def serve(
    config_path: str | None,
    origins: tuple[str, ...],
    cache_dirs: tuple[str, ...],
    listen: str | None,
    admin_listen: str | None,
    local_socket: str | None,
) -> None:
    """Run a cache server until SIGTERM or Ctrl-C.

    No AWS is needed to try it: `hotshard serve --origin file:///data --cache-dir /mnt/nvme/hotshard`.
    """
    arguments: list[str] = []
    for option, values in (
        ("--config", (config_path,)),
        ("--origin", origins),
        ("--cache-dir", cache_dirs),
        ("--listen", (listen,)),
        ("--admin-listen", (admin_listen,)),
        ("--local-socket", (local_socket,)),
    ):
        for value in values:
            if value is not None:
                arguments += [option, value]
    _become_server(arguments)


@click.group()
def config() -> None:
    """Look at a configuration."""


@config.command()
@click.argument("file", required=False)
def check(file: str | None) -> None:
    """Check FILE and the HOTSHARD_* variables; every mistake is reported at once."""
    _become_server(["--check", *(["--config", file] if file else [])])


def _become_server(arguments: list[str]) -> None:
    if importlib.util.find_spec("cache_server") is None:
        raise Failure(
            "the server is not installed here", "install it with `pip install 'hotshard[server]'`"
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "cache_server", *arguments])  # noqa: S606
