"""A program that seals and evicts until it is killed, and says what it has done.

`+ <number>` on a line of its own: shard <number> is sealed. `- <number>`: it is about to be evicted.
Arguments: the directory, and the number to begin with.
"""

import asyncio
import os
import sys
from pathlib import Path

from support.stores import fill, make_key, new_store


def number_key(number: int):
    """Sizes from one page to some blocks."""
    return make_key(f"s3://b/kill/{number}", 1 + number * 7919 % 300_000)


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def main() -> None:
    store = new_store(Path(sys.argv[1]), disks=2)
    await store.start()
    numbers = iter(range(int(sys.argv[2]), 1 << 30))

    async def work() -> None:
        for number in numbers:
            await fill(store, number_key(number))
            say(f"+ {number}")
            if number % 5 == 0:
                say(f"- {number}")
                await store.evict(f"s3://b/kill/{number}", include_pinned=False)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())


if __name__ == "__main__":
    asyncio.run(main())
