"""The `hotshard` command. `main` is the entry point; the commands are in the modules beside it.

Modules here import the client, gRPC and rich inside functions, so that `hotshard --help` and shell
completion answer at once.
"""

import sys


def main() -> None:
    """Run the command line; says how to install what is missing."""
    try:
        from hotshard.cli.app import run
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(f"hotshard: {error.name} is not installed: pip install 'hotshard[cli]'")
    sys.exit(run(sys.argv[1:]))
