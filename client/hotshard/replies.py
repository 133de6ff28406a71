"""Protobuf messages -> the values of `hotshard.calls`, for both transports."""

from collections.abc import Iterable

from hotshard.calls import (
    ClusterStatus,
    DatasetStatus,
    DiskStatus,
    Money,
    Page,
    Prefix,
    ServerStatus,
    Totals,
    WarmProgress,
)
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import types_pb2 as pb
from hotshard.wire import error_from_pb, info_from_pb


def stats_from_pb(message: pb.StatManyReply) -> list[ObjectInfo | HotshardError]:
    """A batch of descriptions and refusals."""
    return [
        error_from_pb(result.error) if result.HasField("error") else info_from_pb(result.object)
        for result in message.results
    ]


def page_from_pb(message: pb.ListReply) -> Page:
    """A page of a listing."""
    return Page(
        [info_from_pb(each) for each in message.objects],
        [Prefix(uri) for uri in message.common_prefixes],
        message.next_page_token,
    )


def progress_from_pb(message: pb.WarmProgress) -> WarmProgress:
    """Where a prefetch stands."""
    return WarmProgress(
        message.listing,
        message.planned_objects,
        message.planned_bytes,
        message.resident_objects,
        message.resident_bytes,
        message.failed_objects,
        message.failed_bytes,
        tuple(error_from_pb(each) for each in message.failures),
        message.done,
    )


def status_from_pb(message: pb.StatusReply) -> ServerStatus:
    """The server in figures."""
    return ServerStatus(
        message.node_id,
        message.version,
        message.uptime_s,
        message.ready,
        list(message.origins),
        _disks(message.disks),
        [_dataset(each) for each in message.datasets],
        dict(message.counters),
        _cluster(message.cluster) if message.HasField("cluster") else None,
        _money(message.money),
        _totals(message.history[-1]) if message.history else Totals(),
        message.fills_running,
    )


def _money(message: pb.Money) -> Money:
    return Money(
        dict(message.avoided_requests),
        message.avoided_bytes,
        message.cross_zone_bytes,
        message.direct_usd,
        message.spent_usd,
        message.saved_usd,
    )


def _totals(message: pb.Sample) -> Totals:
    return Totals(
        message.at_s,
        message.hit_bytes,
        message.asked_bytes,
        message.peer_bytes,
        message.origin_bytes,
    )


def _dataset(message: pb.DatasetStatus) -> DatasetStatus:
    return DatasetStatus(
        message.name,
        message.shards,
        message.bytes,
        message.state,
        message.replica_bytes,
        message.streamed_bytes,
    )


def _cluster(message: pb.ClusterStatus) -> ClusterStatus:
    return ClusterStatus(
        message.name,
        message.me.grpc,
        message.me.zone,
        message.me.state,
        message.view_version,
        dict(message.members),
        message.slots,
        message.slots_owned,
    )


def _disks(messages: Iterable[pb.DiskStatus]) -> list[DiskStatus]:
    return [
        DiskStatus(
            each.path,
            each.disk_id,
            each.state,
            each.detail,
            each.capacity_bytes,
            each.used_bytes,
            each.sealed_shards,
            each.partial_bytes,
        )
        for each in messages
    ]
