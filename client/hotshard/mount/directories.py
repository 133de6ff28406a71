"""What lies in which directory: listings, fetched and kept for their time to live.

A directory is listed as a whole at the first touch, by a thread of its own pool, one listing of a
directory at a time. Who looks for a name waits a moment for it; while a large directory is still being
listed, or after its time ran out, names are asked for one by one. When the origin cannot be asked, an old
listing goes on being believed.

The lock is the file system's; methods that say so expect it to be held.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from hotshard.core.errors import HotshardError, InternalError, NotFound
from hotshard.core.objects import ObjectInfo
from hotshard.mount import tree
from hotshard.mount.codec import FOR_EVER_S
from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import Builder, Listing
from hotshard.mount.source import Source
from hotshard.mount.state import Arena

log = logging.getLogger(__name__)

SUSPECT_MAX = 10_000
LIST_WAIT_S = 0.5  # for a lookup: most directories are listed in less

Found = tuple[Listing, int]
Spawn = Callable[[Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long names may be believed."""

    ttl_s: float
    immutable: bool
    list_timeout_s: float

    def left_s(self, fetched_ns: int, now_s: float) -> float:
        """For how long still; not positive: ask again."""
        return FOR_EVER_S if self.immutable else fetched_ns / 1e9 + self.ttl_s - now_s


@dataclass(slots=True)
class _Flight:
    """A listing on its way."""

    done: threading.Event = field(default_factory=threading.Event)
    error: HotshardError | None = None


class Directories:
    """The listings of a mount."""

    def __init__(
        self,
        source: Source,
        prefix: str,
        inodes: InodeTable,
        arena: Arena,
        freshness: Freshness,
        clock: Callable[[], float],
    ) -> None:
        self.lock = threading.RLock()
        self._source = source
        self._prefix = prefix
        self._inodes = inodes
        self._arena = arena
        self._fresh = freshness
        self._clock = clock
        self._current = inodes.current()
        self._flights: dict[int, _Flight] = {}
        self._newer: dict[int, dict[bytes, Listing]] = {}
        self._suspect: set[tuple[int, bytes]] = set()
        self._serial = max((one.serial for one in inodes.kept()), default=0)
        self._failure = ""
        """Why the last listing failed; empty: it did not."""
        self.spawn: Spawn = _start_thread

    def find(self, node: int, name: bytes) -> Found | bool:
        """Where a name is, as far as is known. True: surely not there; False: ask. Locked."""
        if (node, name) in self._suspect:
            return False
        newer = self._newer.get(node)
        listing = newer.get(name) if newer else None
        if listing is None:
            listing = self._current.get(node)
        if listing is None or self.left_s(listing) <= 0:
            return False
        index = listing.find(name)
        return True if index < 0 else (listing, index)

    def fresh(self, node: int) -> Listing | None:
        """The listing of a directory, if it may be believed. Locked."""
        listing = self._current.get(node)
        return listing if listing is not None and self.left_s(listing) > 0 else None

    def current(self, node: int) -> Listing | None:
        """The newest listing of a directory, however old. Locked."""
        return self._current.get(node)

    def left_s(self, listing: Listing) -> float:
        """How long what it says may be believed."""
        return self._fresh.left_s(listing.fetched_ns, self._clock())

    def ask(self, node: int, path: bytes, name: bytes, timeout_s: float) -> Found | bool:
        """A name that is not known: blocks. True when it is not there.

        Raises:
            HotshardError: the source cannot say, and no older listing can.
        """
        with self.lock:
            suspect = (node, name) in self._suspect
        if not suspect and self._await_listing(node, path, min(LIST_WAIT_S, timeout_s)):
            with self.lock:
                found = self.find(node, name)
            if found is not False:
                return found
        try:
            builder = self._point(node, path, name)
        except NotFound:
            with self.lock:
                self._suspect.discard((node, name))
            return True
        except HotshardError:
            with self.lock:
                known = self._current.get(node)
                index = known.find(name) if known is not None else -1
            if known is None or suspect:
                raise
            return True if index < 0 else (known, index)
        return self._believe(node, name, builder)

    def load(self, node: int, path: bytes, timeout_s: float) -> None:
        """See to it that there is a current listing of a directory, fresh if one can be had: blocks.

        Raises:
            HotshardError: it cannot be had, and there is no older one.
        """
        flight = self._fly(node, path)
        if not flight.done.wait(timeout_s):
            raise InternalError(f"listing {path!r} takes longer than {timeout_s:.0f} s")
        with self.lock:
            if node in self._current:
                return
        raise flight.error or InternalError(f"the listing of {path!r} was dropped")

    def doubt(self, directory: int, name: bytes) -> bool:
        """What is known of a name proved wrong: ask before it is believed again. Locked.

        False: there is doubt already, or too much of it to note.
        """
        if (directory, name) in self._suspect or len(self._suspect) >= SUSPECT_MAX:
            return False
        self._suspect.add((directory, name))
        return True

    def drop(self, node: int) -> None:
        """The kernel has forgotten a directory. Locked."""
        listing = self._current.pop(node, None)
        if listing is not None:
            self._inodes.retire(listing)
        self._drop_newer(node)

    def totals(self) -> tuple[int, int]:
        """(names, bytes) in every current listing. Locked."""
        listings = self._current.values()
        return sum(len(one) for one in listings), sum(one.bytes for one in listings)

    def _await_listing(self, node: int, path: bytes, timeout_s: float) -> bool:
        return self._fly(node, path).done.wait(timeout_s)

    def _fly(self, node: int, path: bytes) -> _Flight:
        with self.lock:
            flight = self._flights.get(node)
            if flight is not None:
                return flight
            flight = _Flight()
            if self.fresh(node) is not None:
                flight.done.set()
                return flight
            self._flights[node] = flight
        self.spawn(lambda: self._list(node, path, flight))
        return flight

    def _list(self, node: int, path: bytes, flight: _Flight) -> None:
        try:
            builder = self._fetch(node, path)
            self._failure = ""
            with self.lock:
                if node in self._inodes:
                    self._install(node, builder)
        except HotshardError as error:
            flight.error = error
            if str(error) != self._failure:  # who waits has it tried several times a second
                log.warning("listing %s%s: %s", self._prefix, path.decode(errors="replace"), error)
            self._failure = str(error)
        finally:
            with self.lock:
                self._flights.pop(node, None)
            flight.done.set()

    def _fetch(self, node: int, path: bytes) -> Builder:
        uri = tree.uri_of(self._prefix, path)
        builder, token = Builder(path, node), ""
        give_up_s = self._clock() + self._fresh.list_timeout_s
        while True:
            if self._clock() >= give_up_s:
                raise InternalError(f"listing {uri} took too long", uri=uri)
            page = self._source.names(uri, token, 0)
            tree.add_page(builder, uri, page.objects, page.prefixes)
            token = page.next_token
            if not token:
                return builder

    def _install(self, node: int, builder: Builder) -> None:
        before = self._current.get(node)
        listing = self._store(builder)
        self._current[node] = listing
        self._inodes.make_current(listing, before)
        self._drop_newer(node)

    def _store(self, builder: Builder) -> Listing:
        self._serial += 1
        packed = builder.pack(self._serial, int(self._clock() * 1e9))
        listing = self._arena.store(packed)
        self._inodes.install(listing)
        return listing

    def _point(self, node: int, path: bytes, name: bytes) -> Builder:
        uri = tree.uri_of(self._prefix, path + name)
        # The directory first: a key that is both an object and a prefix is the directory.
        below = self._source.names(uri + "/", "", 1)
        info: ObjectInfo | None = None
        if not below.objects and not below.prefixes:
            info = self._source.stat(uri)
        return tree.single(path, node, name, info)

    def _believe(self, node: int, name: bytes, builder: Builder) -> Found:
        with self.lock:
            listing = self._store(builder)
            self._inodes.pin(listing)
            newer = self._newer.setdefault(node, {})
            before = newer.get(name)
            newer[name] = listing
            if before is not None:
                self._inodes.unpin(before)
            self._suspect.discard((node, name))
            return listing, 0

    def _drop_newer(self, node: int) -> None:
        for listing in self._newer.pop(node, {}).values():
            self._inodes.unpin(listing)


def _start_thread(job: Callable[[], None]) -> None:
    threading.Thread(target=job, daemon=True).start()
