"""Files for shards that are to be filled: room reserved on a disk, and a blank file there."""

import logging

from cache_server.store.admission import Admission
from cache_server.store.blanks import Blanks
from cache_server.store.disks import Disks
from cache_server.store.shard import ShardKey
from cache_server.store.volume import Blank, Partial, Volume, footprint
from hotshard.core.blocks import shard_digest

logger = logging.getLogger(__name__)


class Beginnings:
    """See the module. Event loop only."""

    def __init__(self, admission: Admission, disks: Disks, blanks: Blanks) -> None:
        self._admission = admission
        self._disks = disks
        self._blanks = blanks

    async def one(self, key: ShardKey) -> Partial:
        """Reserve room for a shard and give a sparse file to fill.

        Raises:
            NoSpace: no disk has room, or works.
            NotAdmitted: there is room only in place of what is worth more.
        """
        newcomer = self._admission.newcomer(key)
        for volume in newcomer.volumes:
            if await self._admission.reserve(volume, newcomer):
                partial = await self._file(volume, key)
                if partial is not None:
                    return partial
        raise self._admission.refusal(key)

    def at_hand(self, key: ShardKey) -> Partial | None:
        """`one`, if room and a blank file are at hand; None: await `one`."""
        volume = self._admission.roomy(key)
        blank = self._blanks.at_hand(volume) if volume is not None else None
        if volume is None or blank is None:
            return None
        volume.partial_bytes += footprint(key.size)
        return _partial(key, blank, volume)

    async def unnamed(self, uri: str, size_max: int) -> Partial | None:
        """Room and a file for an object of which only the name is known; `name` it before it is sealed.

        None: no disk has room to spare. Nothing is evicted for what may be smaller, or not to be kept.
        """
        digest = shard_digest(uri, "", 0)  # any disk will do; this spreads them
        key = ShardKey(digest, uri, "", 0, size_max, size_max, 0)
        volume = await self._admission.with_room(key)
        if volume is None:
            return None
        volume.partial_bytes += footprint(size_max)
        return await self._file(volume, key)

    def name(self, partial: Partial, key: ShardKey) -> None:
        """Say which shard an unnamed partial is; what it does not need is free again."""
        partial.volume.partial_bytes -= footprint(partial.key.size) - footprint(key.size)
        partial.key = key

    async def _file(self, volume: Volume, key: ShardKey) -> Partial | None:
        """A file on a disk where room is reserved; None: it cannot be made, and the room is given back."""
        blank = None
        try:
            blank = await self._blanks.one(volume)
        except OSError as error:
            logger.warning("%s: cannot create a file: %s", volume.path, error)
            self._disks.failed(volume, error)
        finally:
            if blank is None:
                volume.partial_bytes -= footprint(key.size)
        return None if blank is None else _partial(key, blank, volume)


def _partial(key: ShardKey, blank: Blank, volume: Volume) -> Partial:
    return Partial(key, blank.file, blank.reader, blank.path, volume)
