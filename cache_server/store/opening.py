"""Opening sealed shards: from the open files, else in one pool job for all that are asked together.

A shard that is not trusted (see recovery.py) is checked in that job before it is handed out. Whoever asks
for a shard that is being opened waits for the same job, so a shard is never checked twice at a time.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from cache_server.store import layout
from cache_server.store.disks import Disks
from cache_server.store.drops import Drops
from cache_server.store.records import Records
from cache_server.store.sealer import Note
from cache_server.store.shelf import Shelf
from cache_server.store.verify import holds, new_buffer
from cache_server.store.volume import Volume
from hotshard.openfile import OpenFile

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Opening:
    """One shard on its way."""

    digest: bytes
    row: int
    size: int
    verified: bool
    volume: Volume
    future: asyncio.Future[OpenFile | None]
    file: OpenFile | None = None
    corrupt: bool = False
    error: OSError | None = None

    def work(self, buffer: memoryview | None) -> None:
        """Open, and check if it is not trusted; in the pool."""
        try:
            path = layout.sealed_path(self.volume.path, self.digest)
            file = OpenFile(os.open(path, os.O_RDONLY))
            if not self.verified:
                assert buffer is not None
                sums = self.volume.records.sums(self.row)
                self.corrupt = sums is None or not holds(file.fd, self.size, sums, buffer)
            if not self.corrupt:
                self.file = file
        except OSError as error:
            self.error = error


class Opener:
    """See the module."""

    def __init__(self, shelf: Shelf, disks: Disks, drops: Drops) -> None:
        self._shelf = shelf
        self._disks = disks
        self._drops = drops
        self._underway: dict[bytes, asyncio.Future[OpenFile | None]] = {}

    async def open_many(self, digests: Sequence[bytes]) -> list[OpenFile | None]:
        """Open shards; None for one that is not, or no longer, there."""
        known: dict[bytes, OpenFile | None] = {}
        waiting: dict[bytes, asyncio.Future[OpenFile | None]] = {}
        batch: list[_Opening] = []
        for digest in digests:
            file = self._shelf.files.get(digest)
            if file is not None:
                known[digest] = file
            elif digest in self._underway:
                waiting[digest] = self._underway[digest]
            elif (opening := self._new(digest)) is not None:
                batch.append(opening)
                waiting[digest] = self._underway[digest] = opening.future
        if batch:
            # The callback belongs to the store, not to the caller: it runs even if the caller is gone.
            self._shelf.run(partial(_work, batch)).add_done_callback(
                lambda done: self._opened(batch, done)
            )
        if waiting:
            await asyncio.wait(set(waiting.values()))
            known.update((digest, future.result()) for digest, future in waiting.items())
        return [known.get(digest) for digest in digests]

    def _new(self, digest: bytes) -> _Opening | None:
        entry = self._shelf.index.get(digest)
        volume = self._disks.volume_of(digest)
        if entry is None or volume is None:
            return None
        future = asyncio.get_running_loop().create_future()
        return _Opening(digest, entry.row, entry.size, entry.verified, volume, future)

    def _opened(self, batch: list[_Opening], done: asyncio.Future[None]) -> None:
        """Back on the event loop."""
        failure = done.exception()
        for opening in batch:
            del self._underway[opening.digest]
            if failure is not None:
                opening.future.set_exception(failure)
            else:
                self._settle(opening)
                opening.future.set_result(opening.file)
        checked = [o for o in batch if o.file is not None and not o.verified]
        for volume in {o.volume for o in checked}:
            rows = [o.row for o in checked if o.volume is volume]
            write = partial(_write_checked, rows, volume.generation)
            volume.submit(Note(write=write))

    def _settle(self, opening: _Opening) -> None:
        """Draw the conclusions, if the shard is still the one that was opened."""
        entry = self._shelf.index.get(opening.digest)
        if entry is None or entry.row != opening.row or opening.volume.dead:
            return
        if opening.file is not None:
            self._shelf.files.put(opening.digest, opening.file)
            if not opening.verified:
                self._shelf.index.replace(opening.digest, entry._replace(verified=True))
        elif opening.corrupt:
            self._drops.quarantine(opening.volume, opening.digest, "open")
        elif opening.error is not None and opening.error.errno == errno.ENOENT:
            self._drops.drop_soon(opening.volume, opening.digest, "missing")
        elif opening.error is not None:
            logger.warning("%s: cannot be opened: %s", opening.digest.hex(), opening.error)
            if opening.error.errno in (errno.EMFILE, errno.ENFILE):
                self._shelf.files.halve()
            self._disks.failed(opening.volume, opening.error)


def _work(batch: list[_Opening]) -> None:
    buffer = None if all(opening.verified for opening in batch) else new_buffer()
    for opening in batch:
        opening.work(buffer)


def _write_checked(rows: Sequence[int], generation: int, records: Records) -> None:
    records.set_generation(rows, generation)
