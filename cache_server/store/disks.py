"""The cache directories of a node: opening them, losing one, getting it back.

    ready --- an I/O error ---> failed --- a probe that succeeds ---> ready
    refused: another node's, a newer format's, or not a hotshard directory

A failed or refused disk is opened again from time to time exactly as at the start: there is one way in.
Its shards leave the index when it fails and come back with it, if nothing took their place.

All directories agree on the node id. If they do not, the id that most of them have is this node's (the
first one's, at a tie), and the others are refused.
"""

import asyncio
import errno
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import xxhash

from cache_server.store import layout, recovery
from cache_server.store.index import DISKS_MAX, Entry
from cache_server.store.layout import Identity
from cache_server.store.options import CacheDir, DiskReport, StoreEvents, StoreOptions
from cache_server.store.records import Records, Row
from cache_server.store.recovery import Recovered
from cache_server.store.sealer import Drop, Note
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Volume
from hotshard.core.errors import ConfigError
from hotshard.openfile import OpenFile

logger = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORGET_CHUNK = 4096
_NOT_THE_DISK = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@dataclass(slots=True, eq=False)
class Disk:
    """One configured directory."""

    number: int
    directory: CacheDir
    state: str = "failed"
    reason: str = "not opened yet"
    volume: Volume | None = None
    closing: asyncio.Future[None] | None = None
    """The shutdown of its failed volume."""
    forgetting: bool = False
    """Whether its shards are still leaving the index."""


@dataclass(slots=True)
class _Locked:
    """A directory we hold the lock of."""

    lock_fd: OpenFile
    identity: Identity | None


class Disks:
    """See the module."""

    def __init__(
        self,
        dirs: Sequence[CacheDir],
        *,
        shard_bytes: int,
        options: StoreOptions,
        events: StoreEvents,
        shelf: Shelf,
    ) -> None:
        assert len(dirs) <= DISKS_MAX
        self.node_id = ""
        self.all = [Disk(number, directory) for number, directory in enumerate(dirs)]
        self._shard_bytes = shard_bytes
        self._options = options
        self._events = events
        self._shelf = shelf
        self._index = shelf.index
        self.found_shards = False
        """Whether a disk, when it was opened, ever had a shard on it."""

    async def start(self) -> None:
        """Open all; raises ConfigError when a directory is in use, or none works and one is required."""
        await self._open(self.all, starting=True)
        if self._options.required and not any(disk.volume for disk in self.all):
            reasons = [f"cache_dirs: {disk.directory.path}: {disk.reason}" for disk in self.all]
            raise ConfigError(reasons or ["cache_dirs: none given"])

    async def close(self) -> None:
        """Say goodbye on every disk."""
        boot_id = await self._shelf.run(layout.boot_id)
        for disk in self.all:
            if disk.closing is not None:
                await asyncio.wait([disk.closing])
            volume, disk.volume = disk.volume, None
            if volume is None:
                continue
            volume.dead = True  # takes no more jobs; those that are queued are finished
            try:
                await self._shelf.run(partial(volume.close, boot_id=boot_id))
            except OSError as error:
                logger.warning("%s: no clean stop: %s", disk.directory.path, error)

    def ready(self) -> list[Volume]:
        """The disks that take new shards."""
        return [d.volume for d in self.all if d.volume is not None and d.state == "ready"]

    def ranked(self, digest: bytes) -> list[Volume]:
        """The ready disks in the order in which a shard prefers them.

        Weighted rendezvous hashing (Schindelhauer and Schomaker 2005): each disk gets its share by
        capacity, and a disk that comes or goes moves no shard between the others.
        """
        volumes = self.ready()
        if len(volumes) > 1:
            volumes.sort(key=lambda volume: _distance(digest, volume))
        return volumes

    def volume_of(self, digest: bytes) -> Volume | None:
        """Where a sealed shard is."""
        number = self._index.disk_of(digest)
        return None if number is None else self.all[number].volume

    def number_of(self, volume: Volume) -> int:
        """The number of an opened disk."""
        return next(disk.number for disk in self.all if disk.volume is volume)

    def reports(self) -> list[DiskReport]:
        """The state of every disk."""
        return [_report(disk) for disk in self.all]

    # Losing a disk, and getting it back.

    def failed(self, volume: Volume, error: OSError) -> None:
        """Take in an error that a disk gave; all but a lack of space loses the disk."""
        if error.errno in _FULL:
            volume.is_full()
        elif error.errno not in _NOT_THE_DISK and not volume.dead:
            disk = next(disk for disk in self.all if disk.volume is volume)
            volume.dead = True
            disk.volume = None
            for digest in self._shelf.files.digests():
                if self._index.disk_of(digest) == disk.number:
                    self._shelf.files.pop(digest)
            disk.closing = self._shelf.run(partial(_close_failed, volume))
            disk.forgetting = True
            self._forget(disk, self._index.digests())
            self._set_state(disk, "failed", str(error))

    def _forget(self, disk: Disk, digests: list[bytes]) -> None:
        """Take the shards of a lost disk out of the index, some at each turn of the event loop.

        They cannot be reached any more; only their memory and the counts of the datasets are left.
        """
        for digest in digests[-_FORGET_CHUNK:]:
            if self._index.disk_of(digest) == disk.number:
                self._index.pop(digest)
        del digests[-_FORGET_CHUNK:]
        if digests:
            asyncio.get_running_loop().call_soon(self._forget, disk, digests)
        else:
            disk.forgetting = False

    async def probe(self) -> None:
        """Try to open what is not ready."""
        lost = [
            disk
            for disk in self.all
            if disk.volume is None
            and not disk.forgetting
            and (disk.closing is None or disk.closing.done())
        ]
        if lost:
            await self._open(lost, starting=False)

    async def _open(self, disks: list[Disk], *, starting: bool) -> None:
        locked: dict[Disk, _Locked] = {}
        for disk in disks:
            try:
                locked[disk] = await self._shelf.run(partial(_lock, disk.directory.path))
            except layout.InUse as error:
                reason = "in use by another running hotshard server"
                if starting:
                    raise ConfigError([f"cache_dirs: {error} is {reason}"]) from error
                self._set_state(disk, "failed", reason)
            except layout.Refused as error:
                self._set_state(disk, "refused", str(error))
            except OSError as error:
                self._set_state(disk, "failed", str(error))
        if not self.node_id:
            self.node_id = _choose([lock.identity for lock in locked.values()])
        opened: dict[Disk, tuple[Volume, Recovered]] = {}
        for disk, lock in locked.items():
            identity = lock.identity or Identity(layout.FORMAT, self.node_id, layout.new_id())
            if identity.node != self.node_id:
                reason = (
                    f"belongs to node {identity.node} (this is {self.node_id}); empty it to use it"
                )
                self._set_state(disk, "refused", reason)
                continue
            try:
                opened[disk] = await self._open_one(disk, lock, identity)
            except OSError as error:
                self._set_state(disk, "failed", str(error))
        await self._load(opened, starting=starting)

    async def _open_one(
        self, disk: Disk, lock: _Locked, identity: Identity
    ) -> tuple[Volume, Recovered]:
        loop = asyncio.get_running_loop()

        def work() -> tuple[Volume, Recovered]:
            path = disk.directory.path
            layout.make(path, identity)
            recovered = recovery.open_records(path, self._shard_bytes)
            try:
                volume = Volume(
                    disk.directory, identity.disk, lock.lock_fd, recovered, self._options, loop
                )
            except BaseException:
                recovered.records.close()
                raise
            return volume, recovered

        return await self._shelf.run(work)

    async def _load(self, opened: dict[Disk, tuple[Volume, Recovered]], *, starting: bool) -> None:
        pins = self._shelf.pins
        if starting:
            found = [await self._shelf.run(r.records.pins) for _, r in opened.values()]
            pins.set(uri for uris in found for uri in uris)
        for disk, (volume, recovered) in opened.items():
            disk.volume = volume
            try:
                if not recovered.clean:
                    work = partial(recovery.reconcile, volume.path, recovered.records)
                    await self._shelf.run(work)
                await self._adopt(disk, volume)
            except OSError as error:
                self.failed(volume, error)
            if not volume.dead:
                volume.submit(Note(write=partial(_write_pins, pins.as_list())))
                self._set_state(disk, "ready", "")

    async def _adopt(self, disk: Disk, volume: Volume) -> None:
        """Take the shards of a disk into the index, some at a time: other disks may be serving."""
        rows = await self._shelf.run(partial(volume.records.load, 0))
        while rows and not volume.dead:
            for row in rows:
                self._adopt_one(disk, volume, row)
            rows = await self._shelf.run(partial(volume.records.load, rows[-1].row))

    def _adopt_one(self, disk: Disk, volume: Volume, row: Row) -> None:
        self.found_shards = True
        there = self._index.get(row.digest)
        verified = row.generation == volume.generation
        if there is None:
            entry = Entry(
                row=row.row,
                size=row.size,
                dataset=self._index.dataset_id(self._options.dataset_of(row.uri)),
                disk=disk.number,
                pinned=self._shelf.pins.covers(row.uri),
                verified=verified,
            )
            self._index.add(row.digest, entry)
            volume.add(row.digest, entry)
        elif there.disk == disk.number:
            # It was dropped, but its record could not be deleted; then it was sealed again.
            self._index.replace(row.digest, there._replace(row=row.row, verified=verified))
            volume.submit(Note(write=partial(_delete, there.row)))
        else:
            # It was sealed on another disk while this one was away.
            volume.submit(
                Drop(directory=volume.path, digests=[row.digest], rows=[row.row], files=[])
            )

    def _set_state(self, disk: Disk, state: str, reason: str) -> None:
        if (disk.state, disk.reason) == (state, reason):
            return
        disk.state, disk.reason = state, reason
        level = logging.INFO if state == "ready" else logging.ERROR
        logger.log(level, "cache directory %s: %s %s", disk.directory.path, state, reason)
        self._events.disk_state(disk.directory.path, state, reason)


def _lock(path: str) -> _Locked:
    lock_fd = OpenFile(layout.lock(path))
    return _Locked(lock_fd, layout.read_identity(path))


def _choose(identities: Sequence[Identity | None]) -> str:
    """The id that most directories have; of equals the first; a new one if there is none."""
    nodes = Counter(identity.node for identity in identities if identity is not None)
    return nodes.most_common(1)[0][0] if nodes else layout.new_id()


def _close_failed(volume: Volume) -> None:
    try:
        volume.close(boot_id="")
    except OSError as error:
        logger.warning("%s: while closing: %s", volume.path, error)


def _write_pins(uris: Sequence[str], records: Records) -> None:
    records.set_pins(uris)


def _delete(row: int, records: Records) -> None:
    records.delete([row])


def _distance(digest: bytes, volume: Volume) -> float:
    """Exponentially distributed with the capacity as its rate; the nearest disk is preferred."""
    unit = (xxhash.xxh3_64_intdigest(digest + volume.disk_id.encode()) + 1) / (2**64 + 1)
    return -math.log(unit) / max(1, volume.capacity_bytes)


def _report(disk: Disk) -> DiskReport:
    volume = disk.volume
    return DiskReport(
        path=disk.directory.path,
        disk_id=volume.disk_id if volume else "",
        state=disk.state,
        reason=disk.reason,
        capacity_bytes=volume.capacity_bytes if volume else 0,
        limit_bytes=volume.limit_bytes if volume else 0,
        used_bytes=volume.used_bytes if volume else 0,
        partial_bytes=volume.partial_bytes if volume else 0,
        free_bytes=volume.free_bytes if volume else 0,
        shards=volume.shards if volume else 0,
    )
