"""The metrics of reads: where their bytes came from, and what they would have been without a cache.

`hotshard_direct_*` count what a reader without a cache would have asked of the origin for the same reads.
They are lower bounds, so that what is derived from them never flatters:

- an object that is opened counts as one GET, however many ranges of it are then read;
- an object that a client reads again under a lease, without a call, counts as one GET each time the client
  reports it (at most once a second and object), and with no bytes, because nobody knows how many;
- a description that is asked for counts as one HEAD, a listing as one LIST for each 1,000 entries.

What members ask of each other counts on the node whose reader asked.

All of it is on the path of every warm open, so it is counted in plain numbers, found by the directory of
the object, and becomes metrics when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from cache_server.core.money import VERBS, Usage

LOOKUPS = ("hit", "partial", "miss", "bypass")
SOURCES = ("local", "peer", "origin")
DATASETS_MAX = 200
"""Datasets with counters of their own, first come first served; the rest are counted as "other"."""
OTHER = "other"
LIST_ENTRIES = 1000
"""What one LIST of S3 gives."""
_DIRECTORIES_MAX = 10_000


class _Origin:
    """What readers would have asked of one origin."""

    __slots__ = ("bytes", "listed", "requests")

    def __init__(self) -> None:
        self.requests = dict.fromkeys(VERBS, 0)
        self.bytes = 0
        self.listed = 0
        """Entries since the last LIST that was counted."""


class _Place:
    """What is counted for the objects of one directory."""

    __slots__ = ("moved", "origin")

    def __init__(self, moved: dict[str, int], origin: _Origin) -> None:
        self.moved = moved
        """Source -> bytes, of the whole dataset."""
        self.origin = origin


class ReadMetrics(Collector):
    """Counts for the read path and its edges. Use from the event loop only; scraped from any thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        origins: Iterable[str] = (),
        dataset_of: Callable[[str], str] = lambda _uri: "",
    ) -> None:
        self._dataset_of = dataset_of
        self._places: dict[str, _Place] = {}
        self._moved: dict[str, dict[str, int]] = {}
        self._origins = {name: _Origin() for name in sorted(origins, key=len, reverse=True)}
        self._elsewhere = _Origin()
        self._lookups = dict.fromkeys(LOOKUPS, 0)
        self._lookup_bytes = dict.fromkeys(LOOKUPS, 0)
        self._reuses = 0
        registry.register(self)

    # -- where bytes came from ---------------------------------------------------------------------

    def lookup(self, result: str, size: int) -> None:
        """`size` bytes of a shard were asked for; `result` is one of LOOKUPS."""
        self._lookups[result] += 1
        self._lookup_bytes[result] += size

    def moved(self, uri: str, source: str, size: int) -> None:
        """Bytes of an object were found here for a reader, or brought here; `source` is of SOURCES."""
        self._place(uri).moved[source] += size

    def asked_bytes(self) -> tuple[int, int]:
        """Of what was asked for: bytes that were found sealed, and all."""
        return self._lookup_bytes["hit"], sum(self._lookup_bytes.values())

    # -- what it would have been without us --------------------------------------------------------

    def opened(self, uri: str, size: int, *, begins: bool) -> None:
        """A reader was given `size` bytes; `begins`: it does not go on with what it has open."""
        origin = self._place(uri).origin
        origin.bytes += size
        if begins:
            origin.requests["GET"] += 1

    def reused(self, uris: Iterable[str]) -> None:
        """Clients report objects that they read again under a lease."""
        for uri in uris:
            self._reuses += 1
            self._place(uri).origin.requests["GET"] += 1

    def described(self, uri: str) -> None:
        """A reader was told of an object."""
        self._place(uri).origin.requests["HEAD"] += 1

    def listed(self, prefix: str, entries: int, *, begins: bool) -> None:
        """A reader was given a page of a listing."""
        origin = self._origin(prefix)
        if begins:
            origin.requests["LIST"] += 1
            return
        origin.listed += entries
        lists, origin.listed = divmod(origin.listed, LIST_ENTRIES)
        origin.requests["LIST"] += lists

    def direct(self, origins: Iterable[str]) -> Usage:
        """The sum over some origins."""
        counted = [self._origins[name] for name in origins if name in self._origins]
        return Usage(
            requests={verb: sum(each.requests[verb] for each in counted) for verb in VERBS},
            origin_bytes=sum(each.bytes for each in counted),
        )

    # -- scraped -----------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        lookups = _counter(
            "shard_lookups",
            "Shards looked for: sealed (hit), being filled (partial), not here (miss), not here and "
            "not to be kept (bypass).",
            "result",
        )
        lookup_bytes = _counter(
            "shard_lookup_bytes", "Bytes asked for, by how the shard was found.", "result"
        )
        for result in LOOKUPS:
            lookups.add_metric([result], self._lookups[result])
            lookup_bytes.add_metric([result], self._lookup_bytes[result])
        moved = _counter(
            "read_bytes",
            "Bytes found here for readers (local), and bytes brought here (peer, origin).",
            "dataset",
            "source",
        )
        for dataset, sizes in list(self._moved.items()):
            for source in SOURCES:
                moved.add_metric([dataset, source], sizes[source])
        reuses = _counter(
            "lease_reuses", "Objects read again under a lease, as far as clients report it."
        )
        reuses.add_metric([], self._reuses)
        yield from (lookups, lookup_bytes, moved, reuses, *self._direct())

    def _direct(self) -> Iterator[Metric]:
        requests = _counter(
            "direct_requests",
            "Requests that readers would have made to the origin without a cache; a lower bound.",
            "origin",
            "verb",
        )
        received = _counter(
            "direct_bytes",
            "Bytes that readers would have got from the origin without a cache; a lower bound.",
            "origin",
        )
        for name, origin in self._origins.items():
            received.add_metric([name], origin.bytes)
            for verb in VERBS:
                requests.add_metric([name, verb], origin.requests[verb])
        yield from (requests, received)

    # -- where it is counted -----------------------------------------------------------------------

    def _place(self, uri: str) -> _Place:
        directory = uri[: uri.rfind("/") + 1]
        return self._places.get(directory) or self._new_place(directory, uri)

    def _new_place(self, directory: str, uri: str) -> _Place:
        if len(self._places) >= _DIRECTORIES_MAX:
            self._places.clear()
        dataset = self._dataset_of(uri)
        if dataset not in self._moved and len(self._moved) >= DATASETS_MAX:
            dataset = OTHER
        moved = self._moved.setdefault(dataset, dict.fromkeys(SOURCES, 0))
        place = self._places[directory] = _Place(moved, self._origin(uri))
        return place

    def _origin(self, uri: str) -> _Origin:
        for name, origin in self._origins.items():
            if uri.startswith(name):
                return origin
        return self._elsewhere


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"hotshard_{name}", text, labels=labels)
