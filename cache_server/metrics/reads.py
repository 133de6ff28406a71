"""The metrics of reads: where their bytes came from, and what they would have been without a cache.

`hotshard_direct_*` count what a reader without a cache would have asked of the origin for the same reads.
They are lower bounds, so that what is derived from them never flatters:

- an object that is opened counts as one GET, however many ranges of it are then read;
- an object that a client reads again under a lease, without a call, counts as one GET each time the client
  reports it (at most once a second and object), and with no bytes, because nobody knows how many;
- a description that is asked for counts as one HEAD, a listing as one LIST for each 1,000 entries.

What members ask of each other counts on the node whose reader asked.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter

from cache_server.core.money import VERBS, Usage

SOURCES = ("local", "peer", "origin")
DATASETS_MAX = 200
"""Datasets with counters of their own, first come first served; the rest are counted as "other"."""
OTHER = "other"
LIST_ENTRIES = 1000
"""What one LIST of S3 gives."""


class ReadMetrics:
    """Counts for the read path and its edges. Use from the event loop only."""

    def __init__(
        self,
        registry: CollectorRegistry,
        origins: Iterable[str] = (),
        dataset_of: Callable[[str], str] = lambda _uri: "",
    ) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"hotshard_{name}", text, labels, registry=registry)

        self._bytes = counter(
            "read_bytes",
            "Bytes found here for readers (local), and bytes brought here (peer, origin).",
            "dataset",
            "source",
        )
        requests = counter(
            "direct_requests",
            "Requests that readers would have made to the origin without a cache; a lower bound.",
            "origin",
            "verb",
        )
        received = counter(
            "direct_bytes",
            "Bytes that readers would have got from the origin without a cache; a lower bound.",
            "origin",
        )
        self._reuses = counter(
            "lease_reuses", "Objects read again under a lease, as far as clients report it."
        )
        self._dataset_of = dataset_of
        self._by_dataset: dict[str, dict[str, Counter]] = {}
        self._origins = sorted(origins, key=len, reverse=True)
        self._direct_requests = {
            origin: {verb: requests.labels(origin, verb) for verb in VERBS}
            for origin in self._origins
        }
        self._direct_bytes = {origin: received.labels(origin) for origin in self._origins}
        self._listed: dict[str, int] = dict.fromkeys(self._origins, 0)
        self._usage: dict[str, dict[str, float]] = {
            origin: dict.fromkeys((*VERBS, "bytes"), 0.0) for origin in self._origins
        }

    # -- where bytes came from ---------------------------------------------------------------------

    def moved(self, uri: str, source: str, size: int) -> None:
        """Bytes of an object were found here for a reader, or brought here; `source` is of SOURCES."""
        dataset = self._dataset_of(uri)
        counters = self._by_dataset.get(dataset)
        if counters is None:
            if len(self._by_dataset) >= DATASETS_MAX:
                dataset = OTHER
            counters = {source: self._bytes.labels(dataset, source) for source in SOURCES}
            if dataset not in self._by_dataset:
                self._by_dataset[dataset] = counters
        counters[source].inc(size)

    # -- what it would have been without us --------------------------------------------------------

    def opened(self, uri: str, size: int, *, begins: bool) -> None:
        """A reader was given `size` bytes; `begins`: it does not go on with what it has open."""
        origin = self._origin(uri)
        if origin:
            if begins:
                self._count(origin, "GET")
            self._direct_bytes[origin].inc(size)
            self._usage[origin]["bytes"] += size

    def reused(self, uris: Iterable[str]) -> None:
        """Clients report objects that they read again under a lease."""
        for uri in uris:
            self._reuses.inc()
            origin = self._origin(uri)
            if origin:
                self._count(origin, "GET")

    def described(self, uri: str) -> None:
        """A reader was told of an object."""
        origin = self._origin(uri)
        if origin:
            self._count(origin, "HEAD")

    def listed(self, prefix: str, entries: int, *, begins: bool) -> None:
        """A reader was given a page of a listing."""
        origin = self._origin(prefix)
        if not origin:
            return
        if begins:
            self._count(origin, "LIST")
            return
        self._listed[origin] += entries
        while self._listed[origin] >= LIST_ENTRIES:
            self._listed[origin] -= LIST_ENTRIES
            self._count(origin, "LIST")

    def direct(self, origins: Iterable[str]) -> Usage:
        """The sum over some origins."""
        counted = [self._usage[origin] for origin in origins if origin in self._usage]
        return Usage(
            requests={verb: sum(each[verb] for each in counted) for verb in VERBS},
            origin_bytes=sum(each["bytes"] for each in counted),
        )

    def _count(self, origin: str, verb: str) -> None:
        self._direct_requests[origin][verb].inc()
        self._usage[origin][verb] += 1

    def _origin(self, uri: str) -> str:
        for origin in self._origins:
            if uri.startswith(origin):
                return origin
        return ""
