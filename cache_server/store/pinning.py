"""Pins, evictions and look-ups by name. Names are in the records only: read in the pool."""

import asyncio
from collections.abc import Set as AbstractSet
from functools import partial

from cache_server.store.disks import Disks
from cache_server.store.drops import Drops
from cache_server.store.records import Records
from cache_server.store.sealer import Note
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Volume
from hotshard.core.objects import ObjectInfo


class Pinning:
    """See the module. Event loop only."""

    def __init__(self, shelf: Shelf, disks: Disks, drops: Drops) -> None:
        self._shelf = shelf
        self._disks = disks
        self._drops = drops

    async def set(self, uris: AbstractSet[str], *, changed: str) -> list[str]:
        """Replace the pins, on every disk; `changed` is the one that came or went."""
        self._shelf.pins.set(uris)
        volumes = self._disks.ready()
        for volume in volumes:
            await self._write(volume)
        for volume in volumes:
            for digest, uri in await self._named(volume, changed):
                self._mark(volume, digest, pinned=self._shelf.pins.covers(uri))
        return self._shelf.pins.as_list()

    async def evict(self, uri: str, *, include_pinned: bool) -> tuple[int, int]:
        """Drop what is sealed under a name; (shards, bytes)."""
        shards, size = 0, 0
        for volume in self._disks.ready():
            digests = [
                digest
                for digest, name in await self._named(volume, uri)
                if self._is_on(volume, digest)
                and (include_pinned or not self._shelf.pins.covers(name))
            ]
            dropped = await self._drops.drop(volume, digests, "asked")
            shards, size = shards + dropped[0], size + dropped[1]
        return shards, size

    async def recall(self, uri: str) -> ObjectInfo | None:
        """The object of this name that was cached last, by its modification time."""
        found: list[ObjectInfo] = []
        for volume in self._disks.ready():
            try:
                info = await self._shelf.run(partial(volume.records.newest, uri))
            except OSError as error:
                self._disks.failed(volume, error)
            else:
                found += [info] if info is not None else []
        return max(found, key=lambda info: info.mtime_ns, default=None)

    async def _named(self, volume: Volume, uri: str) -> list[tuple[bytes, str]]:
        try:
            return await self._shelf.run(partial(volume.records.under, uri))
        except OSError as error:
            self._disks.failed(volume, error)
            return []

    async def _write(self, volume: Volume) -> None:
        """Write the pins down; done when they are committed."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        job = Note(write=partial(_write_pins, self._shelf.pins.as_list()))

        def delivered() -> None:
            if job.error is not None:
                self._disks.failed(volume, job.error)
            if not done.done():
                done.set_result(None)

        job.delivered = delivered
        volume.submit(job)
        await done

    def _mark(self, volume: Volume, digest: bytes, *, pinned: bool) -> None:
        entry = self._shelf.index.get(digest)
        if entry is None or entry.pinned == pinned or not self._is_on(volume, digest):
            return
        self._shelf.index.replace(digest, entry._replace(pinned=pinned))
        if pinned:
            volume.may_not_evict(digest, entry)
        else:
            volume.may_evict(digest, entry)

    def _is_on(self, volume: Volume, digest: bytes) -> bool:
        return self._disks.volume_of(digest) is volume


def _write_pins(uris: list[str], records: Records) -> None:
    records.set_pins(uris)
