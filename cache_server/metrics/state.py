"""What is, read at scrape time: space, slots, memory, readiness.

The node puts a `State` together from the parts' own reports; nothing is counted twice, so nothing drifts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cache_server.core.money import Ledger

PRIORITIES = ("demand", "prefetch")
DATASETS_MAX = 200
"""Datasets with series of their own; the smaller ones are summed up as "other"."""


class Disk(Protocol):
    """What is shown of a cache dir."""

    @property
    def path(self) -> str:
        """Its directory."""

    @property
    def state(self) -> str:
        """What is up with it; "ready" is good."""

    @property
    def limit_bytes(self) -> int:
        """What may be used now."""

    @property
    def capacity_bytes(self) -> int:
        """What may be used."""

    @property
    def used_bytes(self) -> int:
        """What is used."""

    @property
    def partial_bytes(self) -> int:
        """Of it, by shards not yet sealed."""

    @property
    def free_bytes(self) -> int:
        """Of the file system."""

    @property
    def shards(self) -> int:
        """How many are sealed."""


class Dataset(Protocol):
    """What is shown of a dataset."""

    @property
    def name(self) -> str:
        """The prefix."""

    @property
    def shards(self) -> int:
        """How many are sealed."""

    @property
    def bytes(self) -> int:
        """How many are sealed."""


class Slots(Protocol):
    """What is shown of the fetch slots."""

    @property
    def total(self) -> int:
        """How many there are."""

    @property
    def demand_running(self) -> int:
        """Taken by demand."""

    @property
    def prefetch_running(self) -> int:
        """Taken by prefetch."""

    @property
    def demand_waiting(self) -> int:
        """Demand that waits."""

    @property
    def prefetch_waiting(self) -> int:
        """Prefetch that waits."""


@dataclass(frozen=True, slots=True)
class Limit:
    """How an origin is paced."""

    requests: int
    """That may run at one time."""
    waiting: int
    slow_downs: int
    """How often it asked for fewer, since the start."""


@dataclass(frozen=True, slots=True)
class State:
    """What is, at one moment."""

    disks: Sequence[Disk] = ()
    datasets: Sequence[Dataset] = ()
    slots: Slots | None = None
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    warm_jobs: int = 0
    fills_running: int = 0
    limits: Mapping[str, Limit] = field(default_factory=dict)
    """By origin."""
    ledger: Ledger = field(default_factory=Ledger)
    ready: bool = False


class StateCollector(Collector):
    """Turns the latest State into gauges."""

    def __init__(self) -> None:
        self.state = State()

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        state = self.state
        yield _value("ready", "1 while the server is ready to serve.", state.ready)
        yield _value("warm_jobs", "Warm-ups under way.", state.warm_jobs)
        yield _value("memory_used_bytes", "Of the memory budget, taken.", state.memory_used_bytes)
        yield _value("memory_limit_bytes", "The memory budget.", state.memory_limit_bytes)
        yield _value("fills_running", "Shards being filled.", state.fills_running)
        yield from _slot_metrics(state.slots)
        yield from _limit_metrics(state.limits)
        yield from _disk_metrics(state.disks)
        yield from _dataset_metrics(state.datasets)
        yield from _money_metrics(state.ledger)


def _slot_metrics(slots: Slots | None) -> Iterator[Metric]:
    yield _value("fetch_slots", "Requests to origins that may run.", slots.total if slots else 0)
    running = _family("fetch_slots_running", "Fetch slots in use.", "priority")
    waiting = _family("fetch_slots_waiting", "Fetches that wait for a slot.", "priority")
    for priority in PRIORITIES:
        running.add_metric([priority], getattr(slots, f"{priority}_running", 0))
        waiting.add_metric([priority], getattr(slots, f"{priority}_waiting", 0))
    yield running
    yield waiting


def _limit_metrics(limits: Mapping[str, Limit]) -> Iterator[Metric]:
    allowed = _family(
        "origin_limit",
        "Requests to an origin that may run now; falls when it slows down.",
        "origin",
    )
    waiting = _family("origin_waiting", "Requests to an origin that wait for the limit.", "origin")
    slow_downs = CounterMetricFamily(
        "hotshard_origin_slow_downs", "Times an origin asked for fewer requests.", labels=["origin"]
    )
    for origin, limit in limits.items():
        allowed.add_metric([origin], limit.requests)
        waiting.add_metric([origin], limit.waiting)
        slow_downs.add_metric([origin], limit.slow_downs)
    yield from (allowed, waiting, slow_downs)


def _money_metrics(ledger: Ledger) -> Iterator[Metric]:
    yield _total(
        "cross_zone_bytes",
        "Payload received from members of other zones.",
        ledger.spent.cross_zone_bytes,
    )
    yield _total(
        "direct_usd",
        "What reads would have cost without a cache, at the configured prices; a lower bound.",
        ledger.direct_usd,
    )
    yield _total("spent_usd", "What reads did cost, at the configured prices.", ledger.spent_usd)
    yield _value(
        "saved_usd",
        "direct_usd less spent_usd; of a cluster, only the sum over its nodes has a meaning.",
        ledger.saved_usd,
    )


def _disk_metrics(disks: Sequence[Disk]) -> Iterator[Metric]:
    up = _family("disk_up", "1 while a cache dir is in use, 0 while it is left out.", "disk")
    capacity = _family("disk_capacity_bytes", "What a cache dir may hold.", "disk")
    limit = _family("disk_limit_bytes", "What it may hold now, the free-space floor kept.", "disk")
    used = _family("disk_used_bytes", "What it holds.", "disk")
    partial = _family("disk_partial_bytes", "What it holds in shards not yet sealed.", "disk")
    free = _family("disk_free_bytes", "What is free on its file system.", "disk")
    shards = _family("disk_sealed_shards", "Sealed shards in a cache dir.", "disk")
    for disk in disks:
        up.add_metric([disk.path], disk.state == "ready")
        capacity.add_metric([disk.path], disk.capacity_bytes)
        limit.add_metric([disk.path], disk.limit_bytes)
        used.add_metric([disk.path], disk.used_bytes)
        partial.add_metric([disk.path], disk.partial_bytes)
        free.add_metric([disk.path], disk.free_bytes)
        shards.add_metric([disk.path], disk.shards)
    yield from (up, capacity, limit, used, partial, free, shards)


def _dataset_metrics(datasets: Sequence[Dataset]) -> Iterator[Metric]:
    shards = _family("dataset_shards", "Sealed shards of a dataset.", "dataset")
    sizes = _family("dataset_bytes", "Sealed bytes of a dataset.", "dataset")
    ranked = sorted(datasets, key=lambda dataset: dataset.bytes, reverse=True)
    for dataset in ranked[:DATASETS_MAX]:
        shards.add_metric([dataset.name], dataset.shards)
        sizes.add_metric([dataset.name], dataset.bytes)
    rest = ranked[DATASETS_MAX:]
    if rest:
        shards.add_metric(["other"], sum(dataset.shards for dataset in rest))
        sizes.add_metric(["other"], sum(dataset.bytes for dataset in rest))
    yield shards
    yield sizes


def _family(name: str, text: str, label: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hotshard_{name}", text, labels=[label])


def _total(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"hotshard_{name}", text, value=value)


def _value(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hotshard_{name}", text, value=value)
