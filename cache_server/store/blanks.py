"""Blank files at hand: made many at a time in the pool, so that a small shard pays for no hop."""

import asyncio
import resource

from cache_server.flight import settled
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Blank, Volume

# Under load a disk's blank files go at 2,000 a second, and the thread that makes new ones waits for the
# interpreter lock at each. With 32 left when it was told, one small fill in seven found none, and a fill
# that has to wait costs three times as much. Each takes two of the files that the process may open.
_AT_HAND, _AT_HAND_MIN = 192, 32
_SHARE = 64  # of the process' open files, one in so many


class Blanks:
    """Sees to the blank files of every disk. Event loop only."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = _AT_HAND if soft == resource.RLIM_INFINITY else soft // _SHARE
        self._at_hand = max(_AT_HAND_MIN, min(_AT_HAND, allowed))

    async def one(self, volume: Volume) -> Blank:
        """A blank file.

        Raises:
            OSError: none can be made.
        """
        while (blank := volume.take_blank()) is None:
            making = volume.blanking or self._make(volume)
            if making.done():
                await asyncio.sleep(0)  # made_blanks() is about to run
            await settled(making)  # others wait for it too: it outlives a cancelled caller
            error = making.exception()
            if error is not None:
                raise error
        self._restock(volume)
        return blank

    def at_hand(self, volume: Volume) -> Blank | None:
        """A blank file, if one is made."""
        blank = volume.take_blank()
        self._restock(volume)
        return blank

    def _restock(self, volume: Volume) -> None:
        """Have new ones made in time, so that nobody waits for them."""
        if volume.blanks < self._at_hand and volume.blanking is None:
            volume.blanking = self._make(volume)

    def _make(self, volume: Volume) -> asyncio.Future[list[Blank]]:
        making = volume.blanking = self._shelf.run(volume.make_blanks)
        making.add_done_callback(volume.made_blanks)
        return making
