"""What is known of objects without asking the origin: descriptions and listings, each for a while.

A listing also teaches the descriptions of what it lists, so a job that lists its dataset opens a million
objects without a HEAD. Equal questions at one time share one answer. When the origin cannot be asked,
an answer that is out of date is better than none (unless the origin is `strict`), and so is what the
store remembers of a cached object: cached data is served while the origin is away.

Bounded by `entries_max` descriptions; the least recently asked go first.
"""

import asyncio
import logging
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cache_server.flight import Flights, Spawn
from cache_server.known import KnownSizes
from cache_server.origins.origin import ListPage
from cache_server.origins.table import IMMUTABLE_LEASE_S, Mounted, OriginTable
from hotshard.core.errors import (
    HotshardError,
    InternalError,
    InvalidRequest,
    NotFound,
    OriginUnavailable,
)
from hotshard.core.objects import ObjectInfo

log = logging.getLogger(__name__)

ORIGIN_PAGE = 1000  # what S3 gives for one LIST request
NEGATIVE_TTL_S = 2.0  # a missing object is asked for again soon: it may be on its way
RETRY_STALE_S = 5.0  # how long an out-of-date answer stands in before the origin is tried again
STAT_PARALLEL = 32


@dataclass(slots=True)
class _Entry:
    info: ObjectInfo | None
    """None: the origin has no such object."""
    learned_s: float
    expires_s: float


@dataclass(frozen=True, slots=True)
class _Page:
    page: ListPage
    expires_s: float


Ask = Callable[[], Coroutine[Any, Any, ObjectInfo]]
_PageKey = tuple[str, bool, str]  # prefix, recursive, the origin's token


class Catalog:
    """Descriptions and listings, with their age. Times are of the given monotonic clock."""

    def __init__(
        self,
        table: OriginTable,
        *,
        spawn: Spawn,
        clock: Callable[[], float],
        recall: Callable[[str], Awaitable[ObjectInfo | None]],
        entries_max: int,
        dataset_of: Callable[[str], str] = lambda _uri: "",
    ) -> None:
        self._table = table
        self._clock = clock
        self._recall = recall
        self._entries_max = entries_max
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._sizes = KnownSizes(dataset_of)
        self.known_bytes = self._sizes.bytes
        """Dataset -> how large it is, as far as is known."""
        self._pages: OrderedDict[_PageKey, _Page] = OrderedDict()
        self._paged_entries = 0
        # A question that another member has passed on never waits for one that we have passed on: the
        # two could wait for each other.
        self._stats: Flights[tuple[str, bool, int], ObjectInfo] = Flights(spawn)
        self._lists: Flights[tuple[_PageKey, bool, int], ListPage] = Flights(spawn)
        # How often something was forgotten. A question from before may have an answer from before: nobody
        # joins it any more, and its answer is not kept.
        self._epoch = 0
        self.has_forgotten = False
        """Whether something that was described to somebody may be unknown by now."""

    def fresh(self, uri: str) -> tuple[ObjectInfo, float] | None:
        """What is known of the object and for how many seconds; None: it must be asked for."""
        entry = self._entries.get(uri)
        if entry is None or entry.info is None:
            return None
        left_s = entry.expires_s - self._clock()
        if left_s <= 0.0:
            return None
        self._entries.move_to_end(uri)
        return entry.info, min(left_s, IMMUTABLE_LEASE_S)

    def known(self, uri: str) -> ObjectInfo | None:
        """The last description, however old."""
        entry = self._entries.get(uri)
        return entry.info if entry else None

    def age_s(self, uri: str) -> float:
        """How long ago the description was learned; 0 if there is none."""
        entry = self._entries.get(uri)
        return self._clock() - entry.learned_s if entry else 0.0

    def lease_s(self, uri: str) -> float:
        """For how long a client may go on without asking."""
        known = self.fresh(uri)
        return known[1] if known else 0.0

    def unheard(self, uri: str) -> bool:
        """Whether nothing is known of an object, and nobody is asking what it is."""
        return uri not in self._entries and (uri, False, self._epoch) not in self._stats

    def dataset(self, uri: str) -> str:
        """Which dataset an object belongs to."""
        return self._sizes.dataset(uri)

    async def stat(
        self, uri: str, *, pinned: str = "", forwarded: bool = False, ask: Ask | None = None
    ) -> ObjectInfo:
        """Describe an object.

        Args:
            uri: its address.
            pinned: the version the caller holds. If that is the last one known, it is not checked again:
                the caller's reads carry it to the origin (If-Match), which tells when it is gone.
            forwarded: another member of the cluster asks us, as the owner of the answer.
            ask: how to ask, if it has to be asked for; else with the `stat` of its origin.
        """
        known = self.fresh(uri)
        if known is not None:
            return known[0]
        mounted, address = self._table.of(uri)
        if not address.key:
            raise InvalidRequest(f"{uri} names a whole bucket, not an object", uri=uri)
        uri = address.uri
        entry = self._entries.get(uri)
        if entry is not None:
            if entry.info is not None and entry.info.version == pinned:
                return entry.info
            if entry.info is None and entry.expires_s > self._clock():
                raise NotFound(f"{uri}: no such object", uri=uri)
        return await self._stats.join(
            (uri, forwarded, self._epoch),
            lambda: self._ask(
                mounted, uri, ask or partial(mounted.for_asker(forwarded=forwarded).stat, uri)
            ),
        )

    async def stat_many(self, uris: Sequence[str]) -> list[ObjectInfo | HotshardError]:
        """Describe several objects; each answer is a description or the error for that object."""
        answers: list[ObjectInfo | HotshardError] = [InternalError("not asked")] * len(uris)
        todo = iter(range(len(uris)))

        async def worker() -> None:
            for index in todo:
                try:
                    answers[index] = await self.stat(uris[index])
                except HotshardError as error:
                    answers[index] = error

        async with asyncio.TaskGroup() as group:
            for _ in range(min(STAT_PARALLEL, len(uris))):
                group.create_task(worker())
        return answers

    async def list_page(
        self,
        prefix: str,
        *,
        recursive: bool,
        token: str,
        page_size: int,
        forwarded: bool = False,
    ) -> ListPage:
        """Part of a listing; `page_size` 0 leaves the size to us. Tokens are opaque to the caller."""
        mounted, address = self._table.of(prefix)
        after, origin_token = _parse_token(token)
        size = min(page_size or ORIGIN_PAGE, ORIGIN_PAGE)
        page = await self._origin_page(
            mounted, (address.uri, recursive, origin_token), forwarded=forwarded
        )
        names = [info.uri for info in page.objects] + page.common_prefixes
        first = _index_after(names, len(page.objects), after)
        stop = min(first + size, len(names))
        if stop < len(names):
            next_token = _token(
                is_object=stop <= len(page.objects),
                after=names[stop - 1],
                origin_token=origin_token,
            )
        else:
            next_token = (
                _token(is_object=True, after="", origin_token=page.next_token)
                if page.next_token
                else ""
            )
        return ListPage(
            objects=page.objects[first:stop],
            common_prefixes=names[max(first, len(page.objects)) : stop],
            next_token=next_token,
        )

    def forget(self, uri: str) -> int:
        """Drop what is known of an object, or of all below a prefix; return how many descriptions."""
        self._epoch += 1
        pages = [k for k in self._pages if k[0].startswith(uri) or uri.startswith(k[0])]
        for key in pages:
            self._drop_page(key)
        if not uri.endswith("/"):
            return int(self._drop(uri))
        below = [known for known in self._entries if known.startswith(uri)]
        for known in below:
            self._drop(known)
        return len(below)

    async def _ask(self, mounted: Mounted, uri: str, ask: Ask) -> ObjectInfo:
        epoch = self._epoch
        try:
            info = await ask()
        except NotFound:
            self._learn(uri, None, NEGATIVE_TTL_S, epoch)
            raise
        except OriginUnavailable:
            if mounted.strict:
                raise
            stale = self.known(uri) or await self._recall(uri)
            if stale is None:
                raise
            log.warning("origin away: serving what is known of %s", uri)
            self._learn(uri, stale, RETRY_STALE_S, epoch)
            return stale
        self._learn(uri, info, mounted.freshness_s, epoch)
        return info

    async def _origin_page(self, mounted: Mounted, key: _PageKey, *, forwarded: bool) -> ListPage:
        cached = self._pages.get(key)
        if cached is not None and cached.expires_s > self._clock():
            self._pages.move_to_end(key)
            return cached.page
        return await self._lists.join(
            (key, forwarded, self._epoch),
            lambda: self._ask_page(mounted, key, forwarded=forwarded),
        )

    async def _ask_page(self, mounted: Mounted, key: _PageKey, *, forwarded: bool) -> ListPage:
        prefix, recursive, token = key
        epoch = self._epoch
        page = await mounted.for_asker(forwarded=forwarded).list_page(
            prefix, recursive=recursive, token=token, page_size=ORIGIN_PAGE
        )
        if epoch != self._epoch:
            self.has_forgotten = True
            return page
        for info in page.objects:
            self._learn(info.uri, info, mounted.freshness_s)
        self._drop_page(key)
        self._pages[key] = _Page(page, self._clock() + mounted.freshness_s)
        self._paged_entries += len(page.objects) + len(page.common_prefixes)
        while self._paged_entries > self._entries_max:
            self._drop_page(next(iter(self._pages)))
        return page

    def _drop_page(self, key: _PageKey) -> None:
        dropped = self._pages.pop(key, None)
        if dropped is not None:
            self._paged_entries -= len(dropped.page.objects) + len(dropped.page.common_prefixes)

    def _learn(
        self, uri: str, info: ObjectInfo | None, holds_s: float, epoch: int | None = None
    ) -> None:
        """Believe it for so long, if nothing was forgotten since `epoch`."""
        if epoch not in (None, self._epoch):
            self.has_forgotten = True
            return
        now_s = self._clock()
        before, size = self._entries.get(uri), 0 if info is None else info.size
        if before is not None and before.info is not None:
            size -= before.info.size
        if size:
            self._sizes.add(uri, size)
        self._entries[uri] = _Entry(info, now_s, now_s + holds_s)
        self._entries.move_to_end(uri)
        while len(self._entries) > self._entries_max:
            self._drop(next(iter(self._entries)))

    def _drop(self, uri: str) -> bool:
        dropped = self._entries.pop(uri, None)
        if dropped is not None and dropped.info is not None:
            self.has_forgotten = True
            self._sizes.add(uri, -dropped.info.size)
        return dropped is not None


# A token of ours: where we are in a page of the origin (the last name given, and whether it was an
# object or a common prefix), and the origin's own token of that page. By name, not by number, so that a
# page that was listed anew in between neither repeats nor skips what is in both.


def _token(*, is_object: bool, after: str, origin_token: str) -> str:
    return f"{'o' if is_object else 'p'}{len(after)}:{after}{origin_token}"


def _parse_token(token: str) -> tuple[tuple[bool, str], str]:
    if not token:
        return (True, ""), ""
    length, sep, rest = token[1:].partition(":")
    if token[0] not in "op" or not sep or not length.isdecimal() or int(length[:6]) > len(rest):
        raise InvalidRequest(f"{token[:80]!r} is not a page token of this server")
    return (token[0] == "o", rest[: int(length)]), rest[int(length) :]


def _index_after(names: list[str], objects: int, after: tuple[bool, str]) -> int:
    """Where in `names` (objects, then common prefixes; each sorted) to go on."""
    is_object, name = after
    if not name:
        return 0
    lo, hi = (0, objects) if is_object else (objects, len(names))
    return bisect_right(names, name, lo, hi)
