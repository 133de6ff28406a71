"""An object that nobody has described: one request brings its description and its bytes.

    unheard of, read from its beginning,    one GET of all of it into a blank file, which becomes the file
    and probably small                      of its only shard: a fill that begins where others end
    larger than a block after all           the head of the answer describes it, the body is left unread
    anything else                           the catalog: one HEAD

Probably small is what belongs to a dataset of which the last few objects were. The request is the
catalog's question and takes the place of its HEAD: it is shared in the same way, and what it learns is kept
in the same way. The read path then finds a description and a fill, whoever began them.

Not where it could fetch what is here already (a version is not known before the answer): what may have
been cached before this process started, or before its description was forgotten, is looked up by name.
"""

from functools import partial

from cache_server.catalog import Catalog
from cache_server.fill import FillTools
from cache_server.fills import Fills
from cache_server.origins.origin import Fetched, First, FirstOrigin, Target
from cache_server.origins.table import Mounted
from cache_server.recent import Recent
from cache_server.scope import step
from cache_server.store.shard import ShardKey
from cache_server.store.volume import Partial
from cache_server.whole_fill import Arrived
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo

SMALL_RUN = 4  # so many small ones in a row, and the next one is taken to be small
DATASETS_MAX = 1024


class FirstReads:
    """See the module. Use from the event loop only."""

    def __init__(
        self, catalog: Catalog, fills: Fills, tools: FillTools, misses: Recent[str, str]
    ) -> None:
        self._catalog = catalog
        self._fills = fills
        self._tools = tools
        self._store = tools.store
        self._misses = misses
        self._runs: Recent[str, int] = Recent(DATASETS_MAX)

    async def stat(
        self, mounted: Mounted, uri: str, *, pinned: str, forwarded: bool, begins: bool
    ) -> ObjectInfo:
        """Describe an object that is about to be read, as `Catalog.stat` does; its bytes may come along.

        Args:
            mounted: its origin.
            uri: its address.
            pinned: as there.
            forwarded: as there.
            begins: whether it is read from its beginning.
        """
        if not self._catalog.unheard(uri):
            return await self._catalog.stat(uri, pinned=pinned, forwarded=forwarded)
        first = mounted.first
        if first is None or not begins or pinned or forwarded or mounted.strict:
            return await self._catalog.stat(uri, pinned=pinned, forwarded=forwarded)
        if (self._runs.get(self._catalog.dataset(uri)) or 0) >= SMALL_RUN:
            if not await self._may_be_here(uri):
                return await self._catalog.stat(uri, ask=partial(self._ask, first, mounted, uri))
            return await self._catalog.stat(uri)
        info = await self._catalog.stat(uri)
        self._described(info)
        return info

    def _described(self, info: ObjectInfo, *, failed: bool = False) -> None:
        """Draw conclusions for the next one of its dataset."""
        dataset = self._catalog.dataset(info.uri)
        small = info.size <= self._tools.geometry.block_bytes and not failed
        self._runs.put(dataset, min(SMALL_RUN, (self._runs.get(dataset) or 0) + 1) if small else 0)

    async def _may_be_here(self, uri: str) -> bool:
        """Whether some version of it, described to us earlier, may be cached."""
        if not (self._store.found_shards or self._catalog.has_forgotten):
            return False
        return await self._store.recall(uri) is not None

    async def _ask(self, first: FirstOrigin, mounted: Mounted, uri: str) -> ObjectInfo:
        """Describe it, and have its bytes arrive."""
        length_max = self._tools.geometry.block_bytes
        partial_ = await self._store.begin_unnamed(uri, length_max)
        if partial_ is None:
            return await mounted.origin.stat(uri)
        try:
            found = await self._fetch(first, uri, partial_, length_max)
            if found is None:
                return await mounted.origin.stat(uri)
            info, fetched = found.info, found.fetched
            self._described(info, failed=fetched is None)
            if fetched is not None and info.size:
                self._arrived(mounted, info, partial_, fetched)
            return info
        finally:
            await self._store.discard(partial_)  # unless it is being sealed by now

    async def _fetch(
        self, first: FirstOrigin, uri: str, partial_: Partial, length_max: int
    ) -> First | None:
        """The answer; None: our own disk could not be written."""
        slots = self._tools.slots
        ticket = slots.ask(demand=True)
        with step("slot"):
            await slots.acquire(ticket)
        try:
            return await first.fetch_first(uri, Target(partial_.file.fd, 0), length_max)
        except HotshardError:  # some are OSErrors, too
            raise
        except OSError as error:
            self._store.report_write_error(partial_, error)
            return None
        finally:
            slots.release(ticket)

    def _arrived(
        self, mounted: Mounted, info: ObjectInfo, partial_: Partial, fetched: Fetched
    ) -> None:
        """All of an object is in a file: seal it, if it is to be kept and nobody was faster."""
        key = ShardKey.of(info, 0, self._tools.geometry)
        there = self._fills.get(key.digest) is not None or self._store.contains(key.digest)
        if there or not self._store.wants(key):
            return
        self._misses.put(info.uri, "not on this node yet, or evicted")
        self._store.name(partial_, key)
        arrived = Arrived(partial_, fetched)
        self._fills.start(mounted, info, key, demand=True, arrived=arrived)
