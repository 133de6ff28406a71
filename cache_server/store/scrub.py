"""The slow check of everything that is sealed, shard after shard, disk after disk.

Goes on to the next block when its caller lets it, so that the caller sets the pace, and holds no file in
between, so that what is evicted meanwhile gives its space back at once. Reads with O_DIRECT where the file
system can: so it sees what the device holds rather than what the page cache remembers, and does not push
hot data out of memory. For the same reason it waits until the kernel has written a shard: reading it before
would have the device write and read it at once, in the middle of the fills. Where a disk's round stands is
kept over a clean restart.
"""

import errno
import logging
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial

from cache_server.store.disks import Disks
from cache_server.store.drops import Drops
from cache_server.store.layout import sealed_path
from cache_server.store.shelf import Shelf
from cache_server.store.verify import Sums, block_holds, blocks, new_buffer
from cache_server.store.volume import Volume
from hotshard.openfile import OpenFile

logger = logging.getLogger(__name__)

Pace = Callable[[int], Awaitable[None]]
"""Awaited after so many bytes were read: returns when it may go on."""


async def at_once(_size: int) -> None:
    """No pause."""


class Scrubber:
    """See the module. Event loop only."""

    def __init__(self, shelf: Shelf, disks: Disks, drops: Drops) -> None:
        self._shelf = shelf
        self._disks = disks
        self._drops = drops
        self._turn = 0

    async def scrub_one(self, min_age_s: float, pace: Pace) -> int:
        """Check the next shard; its bytes, 0 when there is none, or none that is old enough."""
        volumes = self._disks.ready()
        if not volumes:
            return 0
        self._turn = (self._turn + 1) % len(volumes)
        volume = volumes[self._turn]
        try:
            return await self._scrub_next(volume, min_age_s, pace)
        except FileNotFoundError:
            return 0  # evicted meanwhile
        except OSError as error:
            self._disks.failed(volume, error)
            return 0

    async def _scrub_next(self, volume: Volume, min_age_s: float, pace: Pace) -> int:
        found = await self._shelf.run(partial(volume.records.next_after, volume.scrub_row))
        if found is None:
            volume.scrub_row = 0
            return 0
        row, digest = found
        volume.scrub_row = row
        entry = self._shelf.index.get(digest)
        if entry is None or entry.row != row:
            return 0
        if await self._shelf.run(partial(_is_younger, volume, digest, min_age_s)):
            volume.scrub_row = 0  # what follows is younger still: the round is over
            return 0
        right = await self._holds(volume, found, entry.size, pace)
        now = self._shelf.index.get(digest)
        if not right and now is not None and now.row == row and not volume.dead:
            logger.error("scrub: %s does not hold what was sealed", digest.hex())
            self._drops.quarantine(volume, digest, "scrub")
        return entry.size

    async def _holds(self, volume: Volume, found: tuple[int, bytes], size: int, pace: Pace) -> bool:
        row, digest = found
        sums = await self._shelf.run(partial(volume.records.sums, row))
        if sums is None:
            return True  # evicted meanwhile
        path, buffer = sealed_path(volume.path, digest), new_buffer()
        for block in range(blocks(size, sums)):
            look = partial(_block_holds, path, block, size, sums, buffer)
            if not await self._shelf.run(look):
                return False
            await pace(min(sums.block_bytes, size - block * sums.block_bytes))
        return True


def _is_younger(volume: Volume, digest: bytes, min_age_s: float) -> bool:
    age_s = time.time() - os.stat(sealed_path(volume.path, digest)).st_mtime
    return 0 <= age_s < min_age_s  # below 0 the clock was set back: no reason to wait


def _block_holds(path: str, block: int, size: int, sums: Sums, buffer: memoryview) -> bool:
    try:
        file = OpenFile(os.open(path, os.O_RDONLY | os.O_DIRECT))
        return block_holds(file.fd, block, size, sums, buffer)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    file = OpenFile(os.open(path, os.O_RDONLY))
    return block_holds(file.fd, block, size, sums, buffer)
