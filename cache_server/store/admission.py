"""Which shards come onto the disks, and onto which: reserving room.

A shard has a home: of the disks that could take it, the first one in its order. What is there decides
whether it is taken in; another disk takes it only if it has free room.
"""

from collections.abc import Callable
from typing import NamedTuple

from cache_server.core.eviction import Shard
from cache_server.store.disks import Disks
from cache_server.store.drops import Drops
from cache_server.store.options import NoSpace, NotAdmitted
from cache_server.store.shard import ShardKey
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Volume, footprint


class Newcomer(NamedTuple):
    """A shard that is to be filled."""

    shard: Shard
    volumes: list[Volume]
    """The disks that work, in its order."""
    home: Volume | None
    pinned: bool


class Admission:
    """See the module. Event loop only."""

    def __init__(
        self, shelf: Shelf, disks: Disks, drops: Drops, dataset_of: Callable[[str], str]
    ) -> None:
        self._shelf = shelf
        self._disks = disks
        self._drops = drops
        self._dataset_of = dataset_of

    def wants(self, key: ShardKey, *, declared: bool) -> bool:
        """Whether to fill a shard that was asked for and is not here: the policy's answer.

        What is pinned is always wanted. So is what no disk can take now; `refusal` then says why.
        """
        shard = self._shard(key)
        volumes = self._disks.ranked(key.digest)
        home = _home(volumes, shard.size)
        if home is None or self._shelf.pins.covers(key.uri):
            return True
        if declared:
            home.policy.declare(shard.dataset, home.now())
        room = any(volume.fits(shard.size) for volume in volumes)
        need_bytes = 0 if room else home.excess_bytes(shard.size)
        return home.policy.offer(shard, need_bytes, home.now())

    def newcomer(self, key: ShardKey) -> Newcomer:
        """A shard that is to be filled."""
        shard = self._shard(key)
        volumes = self._disks.ranked(key.digest)
        pinned = self._shelf.pins.covers(key.uri)
        return Newcomer(shard, volumes, _home(volumes, shard.size), pinned)

    async def reserve(self, volume: Volume, newcomer: Newcomer) -> bool:
        """Take room on a disk, evicting if it is the shard's home; False: there is none to be had."""
        shard = newcomer.shard
        if self._drops.is_time_to_look(volume):
            await self._drops.look(volume)
        if volume is newcomer.home and not volume.fits(shard.size):
            await self._drops.make_room(volume, shard.size, None if newcomer.pinned else shard)
        if volume.dead or not volume.fits(shard.size):
            return False
        volume.partial_bytes += shard.size
        return True

    def roomy(self, key: ShardKey) -> Volume | None:
        """The disk that a shard prefers, if it has room now and that is known for sure."""
        volumes = self._disks.ranked(key.digest)
        if not volumes or self._drops.is_time_to_look(volumes[0]):
            return None
        self._drops.look_ahead(volumes[0])
        return volumes[0] if volumes[0].fits(footprint(key.size)) else None

    async def with_room(self, key: ShardKey) -> Volume | None:
        """The first disk, in the order of a shard, that has room now."""
        need_bytes = footprint(key.size)
        for volume in self._disks.ranked(key.digest):
            if self._drops.is_time_to_look(volume):
                await self._drops.look(volume)
            if not volume.dead and volume.fits(need_bytes):
                return volume
        return None

    def refusal(self, key: ShardKey) -> NoSpace:
        """Why no disk takes a shard."""
        if _home(self._disks.ready(), footprint(key.size)) is None:
            return NoSpace(f"no room for {key.size} bytes")
        return NotAdmitted(f"{key.size} bytes would take the place of what is read more often")

    def _shard(self, key: ShardKey) -> Shard:
        dataset = self._shelf.index.dataset_id(self._dataset_of(key.uri))
        return Shard(key.digest, footprint(key.size), dataset)


def _home(volumes: list[Volume], size: int) -> Volume | None:
    return next((volume for volume in volumes if volume.can_fit(size)), None)
