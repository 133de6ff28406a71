"""`python -m cache_server.doctor`: print what the checks find, as JSON."""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence

from cache_server.cluster.channels import read_credentials
from cache_server.config import ServerConfig, load
from cache_server.doctor import disks, limits, members, origins
from hotshard.core.errors import ConfigError
from hotshard.core.findings import Finding, fail, ok


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and print; the exit code says only whether that worked."""
    parser = argparse.ArgumentParser(prog="python -m cache_server.doctor")
    parser.add_argument("--config", metavar="FILE")
    parser.add_argument("--origin", action="append", metavar="URI")
    parser.add_argument("--cache-dir", action="append", metavar="DIR")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.CRITICAL)
    overrides = {"origins": options.origin, "cache_dirs": options.cache_dir}
    try:
        config = load(options.config, os.environ, overrides)
    except ConfigError as error:
        found = [
            fail("configuration", problem, "see docs/CONFIGURATION.md")
            for problem in error.problems
        ]
    else:
        found = [ok("configuration", options.config or "from the environment and the defaults")]
        found += asyncio.run(_checks(config))
    sys.stdout.write(json.dumps([finding.document() for finding in found]) + "\n")
    return 0


async def _checks(config: ServerConfig) -> list[Finding]:
    found = [limits.open_files(), limits.locked_memory(), limits.memory(config)]
    found += await asyncio.to_thread(disks.check, config)
    found += await origins.check(config)
    try:
        credentials = await asyncio.to_thread(read_credentials, config.grpc.tls)
    except OSError as error:
        remedy = "correct grpc.tls; is the secret mounted?"
        found.append(fail("certificates", f"{error.filename}: {error.strerror}", remedy))
    else:
        found += await members.check(config, credentials)
    return found


if __name__ == "__main__":
    sys.exit(main())
