"""The read path, top to bottom.

    open(uri, range)
      catalog    which version is current?              (memory, else one HEAD or first GET, shared)
      for each shard the range touches:
        store      sealed here?                         -> the whole file, good for ever
        fill       being filled, or to be filled?       -> wait for the blocks of the range
        transient  not to be kept, or no disk takes it? -> the block, in memory
      -> open files and where in them the range lies

`open_now` is the same for what needs no waiting, without a system call: the local socket answers with it
from its reader callback. Payload never passes through here: callers get descriptors. A shard that
vanished meanwhile, or failed its check, is simply filled again.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice

from cache_server.catalog import Catalog
from cache_server.fill import Fill, FillTools
from cache_server.fills import Fills
from cache_server.first_reads import FirstReads
from cache_server.flight import result_of
from cache_server.many_opens import ManyOpens, OneByOne
from cache_server.metrics import Metrics
from cache_server.opened import Ask, Explanation, FileExtent, Opened
from cache_server.origins.origin import ListPage
from cache_server.origins.table import Mounted, OriginTable
from cache_server.readers import Readers
from cache_server.recent import Recent
from cache_server.store.options import NoSpace, NotAdmitted
from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums
from cache_server.transient import Transient
from hotshard.core.blocks import Piece, shard_digest
from hotshard.core.errors import CorruptData, HotshardError, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

SHARDS_PER_OPEN = 4  # what one reply may cover at most: 1 GiB, as 4 descriptors
FILL_ATTEMPTS = 3  # a fill that ends in corrupt data, or loses its disk, is tried again
MISSES_OBJECTS = 4096  # objects whose last miss can be explained


class Cache:
    """The cache of one node. Use from the event loop only."""

    def __init__(
        self,
        table: OriginTable,
        catalog: Catalog,
        transient: Transient,
        tools: FillTools,
        metrics: Metrics,
    ) -> None:
        self._table = table
        self._catalog = catalog
        self._transient = transient
        self._tools = tools
        self._store = tools.store
        self._geometry = tools.geometry
        self._metrics = metrics
        self._fills = self.fills = Fills(tools)
        """The shards on their way."""
        one = OneByOne(self.open_now, self.open, self._fill, self._streamed)
        self._many = ManyOpens(one, table, catalog, tools, metrics)
        self._readers = Readers(self._geometry.block_bytes)
        self._misses: Recent[str, str] = Recent(MISSES_OBJECTS)
        self._first_reads = FirstReads(catalog, self._fills, tools, self._misses)

    # -- descriptions ------------------------------------------------------------------------------

    async def stat(self, uri: str, *, forwarded: bool = False) -> ObjectInfo:
        """Describe an object; `forwarded`: for another member, which holds us for the owner."""
        return await self._catalog.stat(uri, forwarded=forwarded)

    async def stat_many(self, uris: Sequence[str]) -> list[ObjectInfo | HotshardError]:
        """Describe objects, each answer an object or its error."""
        return await self._catalog.stat_many(uris)

    async def list_page(
        self,
        prefix: str,
        *,
        recursive: bool,
        token: str,
        page_size: int,
        forwarded: bool = False,
    ) -> ListPage:
        """One page of a listing."""
        return await self._catalog.list_page(
            prefix, recursive=recursive, token=token, page_size=page_size, forwarded=forwarded
        )

    # -- the read path -----------------------------------------------------------------------------

    def open_now(self, uri: str, version: str, offset: int, length: int) -> Opened | None:
        """Answer from memory, or None: use `open`."""
        fresh = self._catalog.fresh(uri)
        if fresh is None:
            return None
        info, lease_s = fresh
        if version and version != info.version:
            return None
        shard_bytes = self._geometry.shard_bytes
        index, start = divmod(offset, shard_bytes)
        size = min(shard_bytes, info.size - index * shard_bytes)
        if start >= size or min(start + length, info.size - index * shard_bytes) > size:
            return None
        file = self._store.cached_fd(shard_digest(uri, info.version, index))
        if file is None:
            return None
        self._metrics.shard_lookup("hit", min(length, size - start), uri)
        extent = FileExtent(index * shard_bytes, size, file, 0, sealed=True)
        return Opened(info, (extent,), lease_s)

    async def open(
        self, uri: str, version: str, offset: int, length: int, *, forwarded: bool = False
    ) -> Opened:
        """Open a range of an object; returns when (the beginning of) the range is present.

        Raises:
            StaleObject: `version` was asked for and the origin has another one.
            HotshardError: as the origin says.
        """
        mounted, address = self._table.of(uri)
        begins = not offset and bool(length)
        info = await self._first_reads.stat(
            mounted, address.uri, pinned=version, forwarded=forwarded, begins=begins
        )
        if version and version != info.version:
            raise StaleObject(f"{info.uri} changed: version {version} is gone", uri=info.uri)
        return await self._open(mounted, info, offset, length, forwarded=forwarded)

    async def open_forwarded(self, info: ObjectInfo, offset: int, length: int) -> Opened:
        """The same for another member of the cluster, which knows the object: not passed on to others.

        Raises:
            HotshardError: as the origin says.
        """
        mounted, _ = self._table.of(info.uri)
        return await self._open(mounted, info, offset, length, forwarded=True)

    async def open_cached(self, info: ObjectInfo, offset: int, length: int) -> Opened | None:
        """The range, if all of it is here; nothing is fetched for it."""
        extents: list[FileExtent] = []
        for piece in self._geometry.pieces(info.size, offset, length):
            key = ShardKey.of(info, piece.index, self._geometry)
            base = piece.index * self._geometry.shard_bytes
            file = self._store.cached_fd(key.digest) or await self._store.open(key.digest)
            fill = self._fills.get(key.digest)
            if file is not None:
                extents.append(FileExtent(base, key.size, file, 0, sealed=True))
            elif fill and not fill.closed and fill.present_stop(piece.start) >= piece.stop:
                extents.append(
                    FileExtent(
                        base + piece.start,
                        piece.stop - piece.start,
                        fill.reader(),
                        piece.start,
                        sealed=False,
                    )
                )
            else:
                return None
        return Opened(info, tuple(extents), 0.0)

    def cached_now(self, info: ObjectInfo, offset: int, length: int) -> Opened | None:
        """`open_cached` from memory, for a range inside one sealed shard."""
        index, start = divmod(offset, self._geometry.shard_bytes)
        key = ShardKey.of(info, index, self._geometry)
        file = self._store.cached_fd(key.digest) if start + length <= key.size else None
        if file is None:
            return None
        extent = FileExtent(offset - start, key.size, file, 0, sealed=True)
        return Opened(info, (extent,), 0.0)

    async def sums(self, info: ObjectInfo, offset: int, length: int) -> Sums | None:
        """The checksums of the blocks of a range that is present, if it is made of whole blocks."""
        index, start = divmod(offset, self._geometry.shard_bytes)
        key = ShardKey.of(info, index, self._geometry)
        return await self._fills.sums(key, start, start + length)

    def sums_now(self, info: ObjectInfo, offset: int, length: int) -> tuple[bool, Sums | None]:
        """Whether the answer of `sums` is in memory, and the answer; for a range inside one shard."""
        index, start = divmod(offset, self._geometry.shard_bytes)
        key = ShardKey.of(info, index, self._geometry)
        if start + length > key.size:
            return False, None
        return self._fills.sums_now(key, start, start + length)

    async def _open(
        self, mounted: Mounted, info: ObjectInfo, offset: int, length: int, *, forwarded: bool
    ) -> Opened:
        pieces = islice(self._geometry.pieces(info.size, offset, length), SHARDS_PER_OPEN)
        extents: list[FileExtent] = []
        try:
            for piece in pieces:
                found, whole_piece = await self._extents(mounted, info, piece, forwarded=forwarded)
                extents += found
                if not whole_piece:
                    break
        except StaleObject:
            # What we knew is out of date: the next open must see the new version.
            self._catalog.forget(info.uri)
            raise
        return Opened(info, tuple(extents), self._catalog.lease_s(info.uri))

    async def open_many(self, asks: Sequence[Ask]) -> list[Opened | HotshardError]:
        """Open several small objects at once, each answer an opening or its error."""
        return await self._many.open(asks)

    def touch(self, uris: Iterable[str]) -> None:
        """These objects were read again without asking us: recency for the eviction policy."""
        for uri in uris:
            info = self._catalog.known(uri)
            if info is not None:
                for index in range(min(self._geometry.shard_count(info.size), SHARDS_PER_OPEN)):
                    self._store.touch(shard_digest(uri, info.version, index))

    # -- residency, for warm-up --------------------------------------------------------------------

    async def make_resident(self, info: ObjectInfo, shards: Sequence[int] = ()) -> None:
        """Have every shard of an object, or these, sealed on this node, behind all demand.

        Raises:
            HotshardError: why it cannot be; NoSpace when no disk takes it.
        """
        mounted, _ = self._table.of(info.uri)
        for index in shards or range(self._geometry.shard_count(info.size)):
            key = ShardKey.of(info, index, self._geometry)
            if not self._store.contains(key.digest):
                fill = self._fill(mounted, info, key, declared=True)
                try:
                    await fill.want(0, key.size, demand=False)
                except StaleObject:
                    self._catalog.forget(info.uri)
                    raise
                await result_of(fill.sealed)

    def shard_keys(self, info: ObjectInfo) -> list[ShardKey]:
        """The shards of an object."""
        count = self._geometry.shard_count(info.size)
        return [ShardKey.of(info, index, self._geometry) for index in range(count)]

    def is_sealed(self, digest: bytes) -> bool:
        """Whether this shard is sealed on this node."""
        return self._store.contains(digest)

    # -- operators ---------------------------------------------------------------------------------

    async def pin(self, uri: str) -> list[str]:
        """Keep an object, or all below a prefix, from being evicted; return all pins."""
        _, address = self._table.of(uri)
        return await self._store.pin(address.uri)

    async def unpin(self, uri: str) -> list[str]:
        """Lift a pin; return all pins that are left."""
        _, address = self._table.of(uri)
        return await self._store.unpin(address.uri)

    async def evict(self, uri: str, *, include_pinned: bool = False) -> tuple[int, int]:
        """Drop what is cached of an object or prefix; return shards and bytes."""
        _, address = self._table.of(uri)
        below = address.uri if address.is_prefix else ""
        for fill in self._fills:
            named = fill.key.uri.startswith(below) if below else fill.key.uri == address.uri
            if named:
                await fill.drop()
        return await self._store.evict(address.uri, include_pinned=include_pinned)

    async def invalidate(self, uri: str) -> int:
        """Forget descriptions and listings of an object or prefix; return how many."""
        _, address = self._table.of(uri)
        return self._catalog.forget(address.uri)

    async def explain(self, uri: str) -> Explanation:
        """Say what is known of an object and where it is."""
        mounted, address = self._table.of(uri)
        info = await self._catalog.stat(address.uri)
        return Explanation(
            info=info,
            origin=mounted.origin.prefix,
            metadata_age_s=self._catalog.age_s(info.uri),
            lease_s=self._catalog.lease_s(info.uri),
            shards=[self._fills.state(key) for key in self.shard_keys(info)],
            last_miss=self._misses.get(info.uri) or "",
        )

    @property
    def origins(self) -> list[str]:
        """The prefixes that are served."""
        return self._table.prefixes

    # -- one shard ---------------------------------------------------------------------------------

    async def _extents(
        self, mounted: Mounted, info: ObjectInfo, piece: Piece, *, forwarded: bool
    ) -> tuple[list[FileExtent], bool]:
        """Where `piece` lies, and whether that is all of it."""
        try:
            return [await self._on_disk(mounted, info, piece, forwarded=forwarded)], True
        except NotAdmitted:
            return await self._streamed(mounted, info, piece, forwarded=forwarded)
        except NoSpace:
            self._misses.put(info.uri, "no disk space: served from memory")
        return await self._from_memory(mounted, info, piece, forwarded=forwarded)

    async def _streamed(
        self, mounted: Mounted, info: ObjectInfo, piece: Piece, *, forwarded: bool
    ) -> tuple[list[FileExtent], bool]:
        """What is not to be kept."""
        self._metrics.shard_lookup("bypass", piece.stop - piece.start)
        self._misses.put(info.uri, "not kept: the disk is full of what is read as often")
        return await self._from_memory(mounted, info, piece, forwarded=forwarded)

    async def _from_memory(
        self, mounted: Mounted, info: ObjectInfo, piece: Piece, *, forwarded: bool
    ) -> tuple[list[FileExtent], bool]:
        base = piece.index * self._geometry.shard_bytes
        start, stop = base + piece.start, base + piece.stop
        extents = await self._transient.extents(mounted, info, start, stop, forwarded=forwarded)
        return extents, extents[-1].object_offset + extents[-1].length >= stop

    async def _on_disk(
        self, mounted: Mounted, info: ObjectInfo, piece: Piece, *, forwarded: bool
    ) -> FileExtent:
        """The file that holds `piece`, once it does.

        Raises:
            NoSpace: it does not come onto a disk; NotAdmitted: because it is not to be kept.
        """
        key = ShardKey.of(info, piece.index, self._geometry)
        base = piece.index * self._geometry.shard_bytes
        failure: Exception = NoSpace("the disks fail")
        for attempt in range(FILL_ATTEMPTS):
            file = await self._sealed_file(key.digest)
            if file is not None:
                asker = "" if forwarded else info.uri
                self._metrics.shard_lookup("hit", piece.stop - piece.start, asker)
                return FileExtent(base, key.size, file, 0, sealed=True)
            fill = self._fill(mounted, info, key, demand=True)
            found = "partial" if fill.present_stop(piece.start) > piece.start else "miss"
            self._metrics.shard_lookup(found, piece.stop - piece.start)
            # The member that asks for a forwarded read reads ahead itself; and a second attempt is no
            # second read, which would make a reader that jumps look like one that goes on.
            if not forwarded and not attempt:
                self._read_ahead(mounted, info, base + piece.start, base + piece.stop)
            try:
                await fill.want(piece.start, piece.stop, forwarded=forwarded)
            except CorruptData as error:
                failure = error
                continue
            except NotAdmitted:
                raise
            except NoSpace:
                if not await self._fills.drop_idle():
                    raise
                continue
            stop = fill.present_stop(piece.start)
            if fill.closed and fill.sealed.exception() is None:
                return FileExtent(base, key.size, fill.sealed.result(), 0, sealed=True)
            if stop >= piece.stop:
                start = piece.start
                return FileExtent(base + start, stop - start, fill.reader(), start, sealed=False)
        raise failure

    async def _sealed_file(self, digest: bytes) -> OpenFile | None:
        if not self._store.contains(digest):
            return None
        return self._store.cached_fd(digest) or await self._store.open(digest)

    def _fill(
        self,
        mounted: Mounted,
        info: ObjectInfo,
        key: ShardKey,
        *,
        demand: bool = False,
        declared: bool = False,
    ) -> Fill:
        """The fill of a shard that is not here. Raises NotAdmitted: it is not to be kept."""
        fill = self._fills.get(key.digest)
        if fill is None:
            if not self._store.wants(key, declared=declared):
                raise NotAdmitted("the disk is full of what is read as often")
            self._misses.put(info.uri, "not on this node yet, or evicted")
            fill = self._fills.start(mounted, info, key, demand=demand)
        return fill

    def _read_ahead(self, mounted: Mounted, info: ObjectInfo, start: int, stop: int) -> None:
        ahead = self._readers.ahead(info, start, stop)
        for piece in self._geometry.pieces(info.size, stop, ahead - stop):
            key = ShardKey.of(info, piece.index, self._geometry)
            if not self._store.contains(key.digest):
                with suppress(NotAdmitted):
                    self._fill(mounted, info, key).ahead(piece.start, piece.stop)
