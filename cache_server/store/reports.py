"""Reports: how the datasets stand, by the index and by the policies of the disks; and one shard."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from cache_server.core.eviction import DatasetUse
from cache_server.store.disks import Disks
from cache_server.store.index import Index
from cache_server.store.layout import sealed_path
from cache_server.store.options import DatasetReport, ShardReport
from cache_server.store.shelf import Shelf
from cache_server.store.volume import Volume


def dataset_reports(index: Index, volumes: Iterable[Volume]) -> list[DatasetReport]:
    """Every dataset that is sealed in part on this node, or was read past the disks."""
    uses: dict[str, list[DatasetUse]] = defaultdict(list)
    for volume in volumes:
        for use in volume.policy.uses(volume.now()):
            uses[index.dataset_name(use.dataset)].append(use)
    sealed = {report.name: report for report in index.datasets()}
    streamed = [name for name, found in uses.items() if any(u.streamed_shards for u in found)]
    return [
        _together(sealed.get(name) or DatasetReport(name, 0, 0), uses[name])
        for name in dict.fromkeys([*sealed, *streamed])
    ]


def _together(report: DatasetReport, uses: list[DatasetUse]) -> DatasetReport:
    return replace(
        report,
        replica_bytes=sum(use.replica_bytes for use in uses),
        active=any(use.active for use in uses),
        streaming=any(use.streaming for use in uses),
        streamed_shards=sum(use.streamed_shards for use in uses),
        streamed_bytes=sum(use.streamed_bytes for use in uses),
    )


def shard_report(shelf: Shelf, disks: Disks, digest: bytes) -> ShardReport | None:
    """A sealed shard."""
    entry, volume = shelf.index.get(digest), disks.volume_of(digest)
    if entry is None or volume is None:
        return None
    return ShardReport(
        path=sealed_path(volume.path, digest),
        size=entry.size,
        dataset=shelf.index.dataset_name(entry.dataset),
        pinned=entry.pinned,
        verified=entry.verified,
        open=digest in shelf.files,
    )
