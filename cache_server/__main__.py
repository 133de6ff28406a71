"""`python -m cache_server`: read the configuration, serve until SIGTERM."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

try:
    import uvloop
except ModuleNotFoundError:
    sys.exit("hotshard: the server is not installed: pip install 'hotshard[server]'")

from cache_server import logs
from cache_server.config import ServerConfig, load
from cache_server.node import Node
from hotshard.core.errors import ConfigError

EXIT_CONFIG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; return its exit code."""
    options = _parser().parse_args(arguments)
    overrides = {
        "origins": options.origin,
        "cache_dirs": options.cache_dir,
        "local_socket.path": options.socket,
        "grpc.listen": options.grpc_listen,
        "admin.listen": options.admin_listen,
        "log.level": options.log_level,
        "log.format": options.log_format,
    }
    try:
        config = load(options.config, os.environ, overrides)
        if options.check:
            print(f"{options.config or 'configuration'}: good")  # noqa: T201 - what was asked for
            return 0
        logs.setup(config.log.level, config.log.format)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(config))
    except ConfigError as error:
        sys.stderr.write(f"hotshard: {error}\n")
        return EXIT_CONFIG
    return 0


async def _serve(config: ServerConfig) -> None:
    logs.catch_uncaught(asyncio.get_running_loop())
    await Node(config, version("hotshard")).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m cache_server",
        description="The hotshard cache server of one node.",
        epilog="All options and their meaning: docs/CONFIGURATION.md",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file (default: $HOTSHARD_CONFIG)")
    parser.add_argument(
        "--check", action="store_true", help="only say whether the configuration is good"
    )
    parser.add_argument(
        "--origin",
        action="append",
        metavar="URI",
        help="serve what lies below s3://bucket/prefix or file:///dir; may be repeated",
    )
    parser.add_argument(
        "--cache-dir", action="append", metavar="DIR", help="keep data there; may be repeated"
    )
    parser.add_argument("--socket", metavar="PATH", help="the local socket")
    parser.add_argument("--grpc-listen", metavar="HOST:PORT", help="the gRPC service")
    parser.add_argument("--admin-listen", metavar="HOST:PORT", help="/metrics, /status and probes")
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    parser.add_argument("--log-format", choices=["text", "json"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
