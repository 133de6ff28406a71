"""The store of a node: sealed shards on its disks, and the partial ones being filled. What the cache calls.

    begin -> the caller writes blocks -> seal: check, record, rename, index      (or discard)
    cached_fd / open / open_many -> a read-only descriptor of the whole, checked content

Parts: disks.py (which directories, opening and losing them), volume.py (one opened directory and its
accounts), sealer.py (its thread; why kill -9 is safe), records.py (its SQLite file), recovery.py (what a
restart finds), index.py (memory), opening.py (descriptors), drops.py (eviction). Decisions are made on the
event loop, file work happens in threads.

Invariants:
- what the index holds was whole and correct when it was sealed, and is not served unchecked after a stop
  that was not clean;
- sealed + partial + quarantined bytes never exceed what the disk may use (drops.py);
- a sealed file is only ever unlinked; nothing is written to it, or punched out of it, again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from cache_server.store.admission import Admission
from cache_server.store.beginning import Beginnings
from cache_server.store.blanks import Blanks
from cache_server.store.disks import Disks
from cache_server.store.drops import Drops
from cache_server.store.index import Entry
from cache_server.store.opening import Opener
from cache_server.store.options import (
    CacheDir,
    DatasetReport,
    DiskReport,
    NoSpace,
    ShardReport,
    StoreEvents,
    StoreOptions,
)
from cache_server.store.pinning import Pinning
from cache_server.store.reports import dataset_reports, shard_report
from cache_server.store.scrub import Pace, Scrubber, at_once
from cache_server.store.sealer import Note, Seal
from cache_server.store.shard import ShardKey
from cache_server.store.shelf import Shelf
from cache_server.store.verify import Sums
from cache_server.store.volume import Partial, Volume, footprint
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import CorruptData
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

logger = logging.getLogger(__name__)

# Shards up to this size are checked by the disk's thread itself, which is quicker than another hop; larger
# ones in the pool, so that small ones need not wait behind them.
_CHECKED_INLINE_BYTES = 4 << 20


class Store:
    """See the module. Event loop only."""

    def __init__(
        self,
        dirs: Sequence[CacheDir],
        *,
        geometry: Geometry,
        options: StoreOptions,
        events: StoreEvents,
    ) -> None:
        self._geometry = geometry
        self._options = options
        self._events = events
        self._shelf = Shelf(open_files_max=options.open_files_max, threads=options.threads)
        self._index = self._shelf.index
        self._disks = Disks(
            dirs,
            shard_bytes=geometry.shard_bytes,
            options=options,
            events=events,
            shelf=self._shelf,
        )
        self._drops = Drops(self._shelf, self._disks, events)
        self._admission = Admission(self._shelf, self._disks, self._drops, options.dataset_of)
        self._beginnings = Beginnings(self._admission, self._disks, Blanks(self._shelf))
        self._opener = Opener(self._shelf, self._disks, self._drops)
        self._pinning = Pinning(self._shelf, self._disks, self._drops)
        self._scrubber = Scrubber(self._shelf, self._disks, self._drops)

    async def start(self) -> None:
        """Open the disks and recover what is sealed on them.

        Raises:
            ConfigError: a directory is in use by another server, or none is usable and one is required.
        """
        await self._disks.start()

    async def close(self) -> None:
        """Finish what is queued and note a clean stop; nothing may be called afterwards."""
        await self._disks.close()
        self._shelf.close()

    @property
    def node_id(self) -> str:
        """This node's name, the same for as long as its disks live."""
        return self._disks.node_id

    # Reading.

    def contains(self, digest: bytes) -> bool:
        """Whether a shard is sealed here."""
        return self._disks.volume_of(digest) is not None

    def cached_fd(self, digest: bytes) -> OpenFile | None:
        """The descriptor of a sealed, checked shard, if it is open already; counts as a use."""
        file = self._shelf.files.get(digest)
        if file is not None:
            self.touch(digest)
        return file

    async def open(self, digest: bytes) -> OpenFile | None:
        """The descriptor of a sealed shard, checked if need be; None: it is not, or no longer, there."""
        return (await self.open_many([digest]))[0]

    async def open_many(self, digests: Sequence[bytes]) -> list[OpenFile | None]:
        """`open` for many, with one hop to the thread pool."""
        for digest in digests:
            self.touch(digest)
        return await self._opener.open_many(digests)

    async def sums(self, digest: bytes) -> Sums | None:
        """The block checksums of a sealed shard; None: it is not, or no longer, there."""
        entry, volume = self._index.get(digest), self._disks.volume_of(digest)
        if entry is None or volume is None:
            return None
        try:
            return await self._shelf.run(partial(volume.records.sums, entry.row))
        except OSError as error:
            self._disks.failed(volume, error)
            return None

    async def used_last(self, size_max: int) -> list[ShardKey]:
        """The sealed shards that are in use, what was used last first, at most so many bytes of them."""
        rows: dict[Volume, list[int]] = {}
        ranks: dict[bytes, int] = {}
        for digest in reversed(self._shelf.files.digests()):
            entry, volume = self._index.get(digest), self._disks.volume_of(digest)
            if entry is None or volume is None:
                continue
            size_max -= entry.size
            if size_max < 0:
                break
            ranks[digest] = len(ranks)
            rows.setdefault(volume, []).append(entry.row)
        found: list[ShardKey] = []
        for volume, wanted in rows.items():
            try:
                found += await self._shelf.run(partial(volume.records.keys, wanted))
            except OSError as error:
                self._disks.failed(volume, error)
        return sorted(found, key=lambda key: ranks[key.digest])

    def touch(self, digest: bytes) -> None:
        """A use that did not come through here (a client reads within its lease)."""
        place = self._index.place_of(digest)
        if place is not None:
            volume = self._disks.all[place[0]].volume
            if volume is not None:
                volume.policy.touch(digest, place[1], volume.now())

    # Filling.

    def wants(self, key: ShardKey, *, declared: bool = False) -> bool:
        """Whether to fill a shard that was asked for and is not here; counts as a use of its dataset.

        Args:
            key: of the shard.
            declared: somebody has said that the dataset will be read, and not only now.
        """
        return self._admission.wants(key, declared=declared)

    async def begin(self, key: ShardKey) -> Partial:
        """Reserve room for a shard and give a sparse file to fill.

        Raises:
            NoSpace: no disk has room, or works.
            NotAdmitted: there is room only in place of what is worth more.
        """
        return await self._beginnings.one(key)

    def begin_now(self, key: ShardKey) -> Partial | None:
        """`begin`, if room and a blank file are at hand; None: await `begin`."""
        return self._beginnings.at_hand(key)

    async def begin_unnamed(self, uri: str, size_max: int) -> Partial | None:
        """A file for what is at most so large, if there is room to spare; `name` it before it is sealed."""
        return await self._beginnings.unnamed(uri, size_max)

    def name(self, partial_: Partial, key: ShardKey) -> None:
        """Say which shard a file is that was begun without."""
        self._beginnings.name(partial_, key)

    async def seal(
        self,
        partial_: Partial,
        sums: Sequence[int],
        algorithm: Algorithm,
        whole: Checksum | None,
    ) -> OpenFile:
        """Check a filled shard against its block checksums and keep it. Ends the partial, come what may.

        Args:
            partial_: all of its blocks are written.
            sums: one per block, in order.
            algorithm: of the sums.
            whole: the origin's checksum of exactly this shard's bytes, under the same algorithm.

        Raises:
            CorruptData: the file does not hold what the checksums say; it is quarantined.
            NoSpace: the disk could not take it.
        """
        done: asyncio.Future[OpenFile] = asyncio.get_running_loop().create_future()

        def sealed(outcome: OpenFile | Exception) -> None:
            if done.done():  # its caller has left
                return
            if isinstance(outcome, Exception):
                done.set_exception(outcome)
            else:
                done.set_result(outcome)

        self.seal_soon(partial_, sums, algorithm, whole, sealed)
        return await done

    def seal_soon(
        self,
        partial_: Partial,
        sums: Sequence[int],
        algorithm: Algorithm,
        whole: Checksum | None,
        done: Callable[[OpenFile | Exception], None],
    ) -> None:
        """`seal` without waiting: `done` is called, later, with what it would return or raise."""
        assert not partial_.released
        partial_.released = True
        volume, key = partial_.volume, partial_.key
        job = Seal(
            directory=volume.path,
            generation=volume.generation,
            key=key,
            partial_path=partial_.path,
            fd=partial_.file.fd,
            sums=Sums(algorithm, self._geometry.block_bytes, sums),
            whole=whole,
            quarantine=volume.quarantine,
        )
        job.delivered = partial(self._sealed, job, partial_, done)
        if key.size <= _CHECKED_INLINE_BYTES or volume.dead:
            volume.submit(job)
        else:
            # Goes on to the disk's thread from a callback: a caller that leaves does not stop it.
            self._shelf.run(job.check_early).add_done_callback(lambda _: volume.submit(job))

    async def discard(self, partial_: Partial) -> None:
        """Give up a partial; nothing happens if it is sealed, or being sealed, already."""
        if not partial_.released:
            partial_.volume.discard(partial_)

    def report_write_error(self, partial_: Partial, error: OSError) -> None:
        """Writing to a partial failed: the disk is full, or it has failed. The caller discards."""
        logger.warning("%s: write failed: %s", partial_.volume.path, error)
        self._disks.failed(partial_.volume, error)

    def _sealed(
        self, job: Seal, partial_: Partial, done: Callable[[OpenFile | Exception], None]
    ) -> None:
        """The disk's thread is done with a seal."""
        volume, key = partial_.volume, partial_.key
        volume.partial_bytes -= footprint(key.size)
        outcome: OpenFile | Exception = partial_.reader
        if job.error is not None:
            self._disks.failed(volume, job.error)
            outcome = NoSpace(str(job.error))
            if not volume.dead:
                partial_.released = False
                volume.partial_bytes += footprint(key.size)
                volume.discard(partial_)
        elif not job.right:
            self._events.quarantined("seal", key.size)
            outcome = CorruptData("the bytes that arrived do not match their checksum", uri=key.uri)
        elif not volume.dead:
            self._take_in(job, volume, partial_.reader)
        done(outcome)

    def _take_in(self, job: Seal, volume: Volume, reader: OpenFile) -> None:
        """Index a shard that has been recorded and renamed."""
        key = job.key
        self._replaced(key.digest, volume)
        pinned = self._shelf.pins.covers(key.uri)
        entry = Entry(
            row=job.row,
            size=key.size,
            dataset=self._index.dataset_id(self._options.dataset_of(key.uri)),
            disk=self._disks.number_of(volume),
            pinned=pinned,
            verified=True,
        )
        self._index.add(key.digest, entry)
        volume.add(key.digest, entry)
        self._shelf.files.put(key.digest, reader)
        self._events.sealed(key.size)

    def _replaced(self, digest: bytes, volume: Volume) -> None:
        """Make way for a new file of a shard that is there: its old one could not be opened."""
        old = self._index.get(digest)
        there = self._disks.volume_of(digest)
        if old is None:
            return
        if there is None:
            self._index.pop(digest)  # of a lost disk
            return
        if there is not volume:
            self._drops.drop_soon(there, digest, "duplicate")
            return
        # The rename has put the new file in the old one's place; only the old record is left.
        self._index.pop(digest)
        self._shelf.files.pop(digest)
        volume.leaving(digest, old)
        volume.sealed_bytes -= footprint(old.size)
        volume.submit(Note(write=lambda records: records.delete([old.row])))

    # Keeping and letting go.

    @property
    def pins(self) -> list[str]:
        """What is pinned."""
        return self._shelf.pins.as_list()

    async def pin(self, uri: str) -> list[str]:
        """Never evict an object, or what is below a prefix, to make room; all pins."""
        return await self._pinning.set({*self.pins, uri}, changed=uri)

    async def unpin(self, uri: str) -> list[str]:
        """Take a pin back; all pins."""
        return await self._pinning.set({*self.pins} - {uri}, changed=uri)

    async def evict(self, uri_prefix: str, *, include_pinned: bool) -> tuple[int, int]:
        """Drop an object, or what is below a prefix that ends in "/"; (shards, bytes)."""
        return await self._pinning.evict(uri_prefix, include_pinned=include_pinned)

    @property
    def found_shards(self) -> bool:
        """Whether there is, or was, anything sealed here that this process has not sealed itself."""
        return self._disks.found_shards

    async def recall(self, uri: str) -> ObjectInfo | None:
        """What is known of an object of which shards are sealed here: for when the origin is away."""
        return await self._pinning.recall(uri)

    # Upkeep: called by the node, again and again.

    async def tend(self) -> None:
        """Give space back when the file system runs short of it; about once a second."""
        for volume in self._disks.ready():
            await self._drops.make_room(volume, 0)

    async def probe(self) -> None:
        """Try to open the disks that have failed; about twice a minute."""
        await self._disks.probe()

    async def scrub_one(self, min_age_s: float = 0.0, pace: Pace = at_once) -> int:
        """Check a shard sealed so long ago against the disk; its bytes, 0 when there is none."""
        return await self._scrubber.scrub_one(min_age_s, pace)

    # Reports.

    def disks(self) -> list[DiskReport]:
        """Every cache directory."""
        return self._disks.reports()

    @property
    def capacity_bytes(self) -> int:
        """What may be used of all disks that work, at this moment."""
        return sum(volume.limit_bytes for volume in self._disks.ready())

    def datasets(self) -> list[DatasetReport]:
        """Every dataset that is sealed in part, or was streamed."""
        return dataset_reports(self._index, self._disks.ready())

    def describe(self, digest: bytes) -> ShardReport | None:
        """A sealed shard."""
        return shard_report(self._shelf, self._disks, digest)
