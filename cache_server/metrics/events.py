"""Every metric of the server: name, meaning, labels. Nothing else makes metrics.

Two kinds. What happens is counted when it happens, through methods named for events. What is (space,
slots, memory) is read at scrape time from a `State` that the node puts together, so that it cannot
drift from the truth. All known label values exist from the start with 0, so that a rate over the first
event is right and an absent series means a wrong name.

Record from the event loop only; `refresh` and `snapshot`, too. `exposition` reads /proc and may take
milliseconds: it belongs into a thread.
"""

import platform
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from types import TracebackType

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from cache_server.core.eviction import REASONS as POLICY_REASONS
from cache_server.core.money import VERBS, Usage
from cache_server.metrics.plain import Counts, Durations
from cache_server.metrics.reads import ReadMetrics
from cache_server.metrics.state import State, StateCollector
from hotshard.core.errors import BY_CODE, code_name

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

METHODS = {
    "local": (
        *("hello", "open", "open_many", "stat", "stat_many", "list", "prefetch", "warm_status"),
        *("subscribe", "status"),
    ),
    "grpc": (
        *("Stat", "StatMany", "List", "Read", "Prefetch", "WarmStatus", "Pin", "Unpin", "Evict"),
        *("Invalidate", "Status", "Explain", "Members", "WatchMembers", "Locate", "Meet", "Offer"),
    ),
}
CODES = ("ok", "cancelled", *(name.lower() for name in BY_CODE))
ORIGIN_OUTCOMES = (*CODES, "retry")
FILL_OUTCOMES = ("sealed", "stale", "corrupt", "no_space", "not_admitted", "failed", "dropped")
EVICTION_REASONS = (*POLICY_REASONS, "asked", "missing", "duplicate")
CHECKS = ("seal", "open", "scrub")

_REQUEST_BUCKETS_S = (
    *(0.000_025, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0),
)
_ORIGIN_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """All metrics of one server, in registries of its own."""

    def __init__(
        self,
        version: str,
        origins: Iterable[str] = (),
        clock: Callable[[], float] = time.perf_counter,
        dataset_of: Callable[[str], str] = lambda _uri: "",
    ) -> None:
        # They would put a second series beside each counter, of no use to anybody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._clock = clock
        self._read_state: Callable[[], State] = State
        self._collector = StateCollector()
        self.registry = registry = CollectorRegistry()
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        build = _gauge(registry, "build_info", "The running version.", "version", "python")
        build.labels(version, platform.python_version()).set(1)
        self._make_request_metrics(registry)
        self._make_read_metrics(registry)
        names = list(origins)
        self.reads = ReadMetrics(registry, names, dataset_of)
        self._make_origin_metrics(registry, names)
        self._make_store_metrics(registry)
        registry.register(self._collector)

    def watch(self, read_state: Callable[[], State]) -> None:
        """Say where the state is read from; called on the event loop."""
        self._read_state = read_state

    def refresh(self) -> None:
        """Read the state anew, for the exposition that follows."""
        self._collector.state = self._read_state()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry) + generate_latest(self._process)

    def snapshot(self) -> dict[str, float]:
        """Name with labels -> value, without histogram buckets and process metrics."""
        self.refresh()
        return {
            _series(sample.name, sample.labels): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if not sample.name.endswith("_bucket")
        }

    # -- requests ----------------------------------------------------------------------------------

    def request(self, path: str, method: str) -> "RequestTimer":
        """A context around one request: counts it, with the code of the error that leaves it."""
        return RequestTimer(self, path, method, self._clock)

    def request_done(self, path: str, method: str, code: str, seconds: float) -> None:
        """A request was answered; `code` is one of CODES."""
        self._requests.of[path, method, code] += 1
        self._request_seconds.observe((path, method), seconds)

    def sent(self, path: str, size: int) -> None:
        """Payload bytes went out in messages."""
        self._sent_bytes.of[path,] += size

    def connections(self, path: str, count: int) -> None:
        """So many clients are connected now."""
        self._connections.labels(path).set(count)

    def bad_message(self, path: str) -> None:
        """A client sent what is no request."""
        self._bad_messages.of[path,] += 1

    # -- the read path -----------------------------------------------------------------------------

    def shard_lookup(self, result: str, size: int, uri: str = "") -> None:
        """`size` bytes of a shard were asked for; `result` is one of LOOKUPS; `uri`: for a reader."""
        self.reads.lookup(result, size)
        if uri and result == "hit":
            self.reads.moved(uri, "local", size)

    def fill(self, outcome: str, seconds: float) -> None:
        """A fill ended in one of FILL_OUTCOMES, so long after it began."""
        self._fills.of[outcome,] += 1
        self._fill_seconds.observe((), seconds)

    # -- origins -----------------------------------------------------------------------------------

    def origin_request(
        self, origin: str, verb: str, outcome: str, seconds: float, payload_bytes: int
    ) -> None:
        """An origin was asked by one of VERBS, with one of ORIGIN_OUTCOMES."""
        self._origin_requests.of[origin, verb, outcome] += 1
        self._origin_seconds.observe((origin, verb), seconds)
        self._origin_bytes.of[origin,] += payload_bytes

    def spent(self, origins: Iterable[str]) -> Usage:
        """What was asked of some origins; every try counts, whether or not it was answered."""
        counted, asked = set(origins), dict.fromkeys(VERBS, 0.0)
        for (origin, verb, _), count in self._origin_requests.of.items():
            if origin in counted:
                asked[verb] += count
        received = self._origin_bytes.of
        return Usage(
            requests=asked, origin_bytes=sum(received.get((origin,), 0) for origin in counted)
        )

    # -- the store ---------------------------------------------------------------------------------

    def sealed(self, size: int) -> None:
        """A shard of `size` bytes was sealed."""
        self._sealed_shards.of[()] += 1
        self._sealed_bytes.of[()] += size

    def evicted(self, reason: str, shards: int, size: int) -> None:
        """Shards were dropped for one of EVICTION_REASONS."""
        self._evicted_shards.of[reason,] += shards
        self._evicted_bytes.of[reason,] += size

    def quarantined(self, check: str, size: int) -> None:
        """A shard failed one of CHECKS and was put away."""
        self._quarantined_shards.of[check,] += 1
        self._quarantined_bytes.of[check,] += size

    # -- construction ------------------------------------------------------------------------------

    def _make_request_metrics(self, registry: CollectorRegistry) -> None:
        asked = [(path, method) for path, methods in METHODS.items() for method in methods]
        self._requests = Counts(
            registry,
            "requests",
            "Requests answered.",
            ("path", "method", "code"),
            [(*each, code) for each, code in product(asked, CODES)],
        )
        self._request_seconds = Durations(
            registry,
            "request_duration_seconds",
            "Time from a request's arrival to the end of its answer.",
            _REQUEST_BUCKETS_S,
            ("path", "method"),
            asked,
        )
        self._sent_bytes = Counts(
            registry,
            "sent_bytes",
            "Payload sent in messages, not as open files.",
            ("path",),
            [(path,) for path in METHODS],
        )
        self._connections = _gauge(registry, "connections", "Clients connected.", "path")
        self._bad_messages = Counts(
            registry,
            "bad_messages",
            "Messages from clients that are no requests.",
            ("path",),
            [("local",)],
        )
        self._connections.labels("local")

    def _make_read_metrics(self, registry: CollectorRegistry) -> None:
        self._fills = Counts(
            registry,
            "fills",
            "Fills of shards that ended.",
            ("outcome",),
            [(outcome,) for outcome in FILL_OUTCOMES],
        )
        self._fill_seconds = Durations(
            registry,
            "fill_duration_seconds",
            "Time from the first request for a shard to the end of its fill.",
            _ORIGIN_BUCKETS_S,
        )

    def _make_origin_metrics(self, registry: CollectorRegistry, names: Sequence[str]) -> None:
        self._origin_requests = Counts(
            registry,
            "origin_requests",
            "Requests to origins; each try counts.",
            ("origin", "verb", "outcome"),
            product(names, VERBS, ORIGIN_OUTCOMES),
        )
        self._origin_seconds = Durations(
            registry,
            "origin_request_duration_seconds",
            "Time of one try of a request to an origin.",
            _ORIGIN_BUCKETS_S,
            ("origin", "verb"),
            product(names, VERBS),
        )
        self._origin_bytes = Counts(
            registry,
            "origin_received_bytes",
            "Payload received from origins.",
            ("origin",),
            [(name,) for name in names],
        )

    def _make_store_metrics(self, registry: CollectorRegistry) -> None:
        self._sealed_shards = Counts(registry, "sealed_shards", "Shards sealed.")
        self._sealed_bytes = Counts(registry, "sealed_bytes", "Bytes of shards sealed.")
        reasons = [(reason,) for reason in EVICTION_REASONS]
        self._evicted_shards = Counts(
            registry, "evicted_shards", "Shards dropped.", ("reason",), reasons
        )
        self._evicted_bytes = Counts(
            registry, "evicted_bytes", "Bytes of shards dropped.", ("reason",), reasons
        )
        checks = [(check,) for check in CHECKS]
        self._quarantined_shards = Counts(
            registry,
            "quarantined_shards",
            "Shards that failed a check and were put away.",
            ("check",),
            checks,
        )
        self._quarantined_bytes = Counts(
            registry,
            "quarantined_bytes",
            "Bytes of shards that were put away.",
            ("check",),
            checks,
        )


class RequestTimer:
    """Times the block it is around. An error that leaves the block, or was `failed`, gives the code."""

    __slots__ = ("_clock", "_code", "_method", "_metrics", "_path", "_start")

    def __init__(
        self, metrics: Metrics, path: str, method: str, clock: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._path = path
        self._method = method
        self._clock = clock
        self._start = 0.0
        self._code = "ok"

    def failed(self, error: BaseException) -> None:
        """The request was answered with this error."""
        cancelled = isinstance(error, CancelledError | GeneratorExit)
        self._code = "cancelled" if cancelled else code_name(error).lower()

    def __enter__(self) -> "RequestTimer":
        self._start = self._clock()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.failed(error)
        seconds = self._clock() - self._start
        self._metrics.request_done(self._path, self._method, self._code, seconds)


def _gauge(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Gauge:
    return Gauge(f"hotshard_{name}", text, labels, registry=registry)


def _series(name: str, labels: dict[str, str]) -> str:
    inside = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    return f"{name}{{{inside}}}" if inside else name
