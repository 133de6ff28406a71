"""Letting sealed shards go, when they are asked to and when their room is needed.

A shard leaves the index at once, so nobody can be handed it from then on; its file is unlinked by the
disk's thread, and until that is done its bytes count as used.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from cache_server.core.eviction import Shard, Victims
from cache_server.flight import settled
from cache_server.store.disks import Disks
from cache_server.store.options import StoreEvents
from cache_server.store.sealer import Drop
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Volume, footprint

LOOK_INTERVAL_S = 1.0


class Drops:
    """See the module. Event loop only."""

    def __init__(self, shelf: Shelf, disks: Disks, events: StoreEvents) -> None:
        self._shelf = shelf
        self._disks = disks
        self._events = events

    async def drop(self, volume: Volume, digests: Sequence[bytes], reason: str) -> tuple[int, int]:
        """Forget shards and unlink their files; when the bytes are free, (shards, bytes)."""
        done: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

        def settle(shards: int, size: int) -> None:
            if not done.done():
                done.set_result((shards, size))

        self._let_go(volume, digests, reason, settle)
        return await done

    def drop_soon(self, volume: Volume, digest: bytes, reason: str) -> None:
        """Forget a shard and unlink its file; nobody waits for it."""
        self._let_go(volume, [digest], reason, _nobody_waits)

    def quarantine(self, volume: Volume, digest: bytes, where: str) -> None:
        """Forget a shard that failed its check and keep its file aside."""
        entry = self._shelf.index.get(digest)
        if entry is not None:
            self._events.quarantined(where, entry.size)
            self._let_go(volume, [digest], "", _nobody_waits, keep=True)

    async def make_room(
        self, volume: Volume, need_bytes: int, newcomer: Shard | None = None
    ) -> None:
        """Evict until `need_bytes` fit, if that can be.

        Args:
            volume: the disk.
            need_bytes: 0: only give space back that the file system is short of.
            newcomer: only what this one may have is evicted; None: whatever it takes.
        """
        if self.is_time_to_look(volume):
            await self.look(volume)
        if volume.fits(need_bytes):
            return
        # One at a time: what the first one evicts may be enough for those that wait.
        async with volume.evicting:
            while not volume.dead and not volume.fits(need_bytes):
                # Evicting in vain helps nobody, unless it is to give space back to others.
                if need_bytes and not volume.can_fit(need_bytes):
                    return
                chosen = _choose(volume, volume.excess_bytes(need_bytes), newcomer)
                if not chosen:
                    return
                await self._drop_all(volume, chosen)

    async def _drop_all(self, volume: Volume, chosen: Sequence[Victims]) -> None:
        """Drop for several reasons; the disk's thread takes jobs in order, so the last one ends last."""
        for victims in chosen[:-1]:
            self._let_go(volume, victims.digests, victims.reason, _nobody_waits)
        await self.drop(volume, chosen[-1].digests, chosen[-1].reason)

    def is_time_to_look(self, volume: Volume) -> bool:
        """Whether what is known of the file system's free space is out of date."""
        now_s = asyncio.get_running_loop().time()
        return now_s - volume.looked_at >= LOOK_INTERVAL_S

    async def look(self, volume: Volume) -> None:
        """Ask the file system for its free space."""
        await settled(self._looking(volume))

    def look_ahead(self, volume: Volume) -> None:
        """Ask it before the answer is out of date, so that those who cannot wait need not."""
        now_s = asyncio.get_running_loop().time()
        if now_s - volume.looked_at >= LOOK_INTERVAL_S / 2:
            _ = self._looking(volume)

    def _looking(self, volume: Volume) -> "asyncio.Future[tuple[int, int]]":
        volume.looked_at = asyncio.get_running_loop().time()
        looking = self._shelf.run(volume.look)
        looking.add_done_callback(partial(self._looked, volume))
        return looking

    def _looked(self, volume: Volume, looking: "asyncio.Future[tuple[int, int]]") -> None:
        if looking.cancelled():
            return
        try:
            volume.looked(*looking.result())
        except OSError as error:
            self._disks.failed(volume, error)

    def _let_go(
        self,
        volume: Volume,
        digests: Sequence[bytes],
        reason: str,
        settle: Callable[[int, int], None],
        *,
        keep: bool = False,
    ) -> None:
        job = Drop(
            directory=volume.path,
            digests=[],
            rows=[],
            files=[],
            quarantine=volume.quarantine if keep else None,
        )
        size = 0
        freed_bytes = 0
        for digest in digests:
            entry = self._shelf.index.pop(digest)
            if entry is None:
                continue
            volume.leaving(digest, entry)
            job.digests.append(digest)
            job.rows.append(entry.row)
            size += entry.size
            freed_bytes += footprint(entry.size)
            file = self._shelf.files.pop(digest)
            if file is not None:
                job.files.append(file)

        def delivered() -> None:
            volume.sealed_bytes -= freed_bytes
            if job.error is not None and not volume.dead:
                self._disks.failed(volume, job.error)
            if not keep and job.digests:
                self._events.evicted(reason, len(job.digests), size)
            settle(len(job.digests), size)

        job.delivered = delivered
        volume.submit(job)


def _choose(volume: Volume, need_bytes: int, newcomer: Shard | None) -> list[Victims]:
    if newcomer is None:
        return volume.policy.victims(max(need_bytes, volume.batch_bytes), volume.now())
    return volume.policy.make_way(newcomer, need_bytes, volume.batch_bytes, volume.now())


def _nobody_waits(_shards: int, _size: int) -> None:
    pass
