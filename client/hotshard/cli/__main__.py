"""`python -m hotshard.cli`: the `hotshard` command."""

from hotshard.cli import main

main()
