"""The node's status, for the gRPC service, the local socket, /status and the metrics: one report."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cache_server.cache import Cache
from cache_server.metrics import Metrics, State
from cache_server.slots import FetchSlots
from cache_server.store.store import Store
from cache_server.transient import Transient
from cache_server.warm import Warmer
from hotshard.v1 import types_pb2 as pb


@dataclass(frozen=True, slots=True)
class Parts:
    """Who is asked."""

    cache: Cache
    store: Store
    slots: FetchSlots
    transient: Transient
    warmer: Warmer


class Statuses:
    """Puts together what the parts say of themselves. Use from the event loop only."""

    def __init__(self, parts: Parts, metrics: Metrics, version: str) -> None:
        self._parts = parts
        self._metrics = metrics
        self._version = version
        self._started_s = time.monotonic()
        self.unready = "starting"
        """Why the node should get no requests now; empty: it should. Broken disks are no reason: the
        node then serves from memory and the origin."""
        self.cluster: Callable[[], pb.ClusterStatus | None] = _alone
        """What is said of the cluster."""
        metrics.watch(self.state)

    def state(self) -> State:
        """What the gauges show."""
        return State(
            disks=self._parts.store.disks(),
            datasets=self._parts.store.datasets(),
            slots=self._parts.slots.counts(),
            memory_used_bytes=self._parts.transient.used_bytes,
            memory_limit_bytes=self._parts.transient.budget_bytes,
            warm_jobs=self._parts.warmer.running,
            ready=not self.unready,
        )

    def status(self) -> pb.StatusReply:
        """The full report."""
        return pb.StatusReply(
            node_id=self._parts.store.node_id,
            version=self._version,
            uptime_s=time.monotonic() - self._started_s,
            ready=not self.unready,
            origins=self._parts.cache.origins,
            disks=[
                pb.DiskStatus(
                    path=disk.path,
                    disk_id=disk.disk_id,
                    state=disk.state,
                    detail=disk.reason,
                    capacity_bytes=disk.capacity_bytes,
                    used_bytes=disk.used_bytes,
                    sealed_shards=disk.shards,
                    partial_bytes=disk.partial_bytes,
                )
                for disk in self._parts.store.disks()
            ],
            datasets=[
                pb.DatasetStatus(name=d.name, shards=d.shards, bytes=d.bytes)
                for d in self._parts.store.datasets()
            ],
            counters=self._metrics.snapshot(),
            cluster=self.cluster(),
        )


def _alone() -> None:
    """A node without a cluster."""


def dataset_namer(prefixes: list[str]) -> Callable[[str], str]:
    """A function from an object's uri to its dataset: the origin's prefix and the next directory."""
    longest_first = sorted(prefixes, key=len, reverse=True)

    def dataset_of(uri: str) -> str:
        for prefix in longest_first:
            if uri.startswith(prefix):
                directory, slash, _ = uri[len(prefix) :].partition("/")
                return f"{prefix}{directory}/" if slash else prefix
        return ""

    return dataset_of
