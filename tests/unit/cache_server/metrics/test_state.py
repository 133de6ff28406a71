"""What is, as gauges."""

from dataclasses import dataclass

from cache_server.metrics import Metrics, State
from cache_server.metrics.state import DATASETS_MAX
from cache_server.slots import SlotCounts
from cache_server.store.options import DatasetReport, DiskReport


def snapshot(state: State) -> dict[str, float]:
    metrics = Metrics("1")
    metrics.watch(lambda: state)
    return metrics.snapshot()


def disk(path: str, state: str) -> DiskReport:
    return DiskReport(
        path=path,
        disk_id="d",
        state=state,
        reason="",
        capacity_bytes=100,
        limit_bytes=90,
        used_bytes=50,
        partial_bytes=10,
        free_bytes=40,
        shards=3,
    )


def test_disks() -> None:
    found = snapshot(State(disks=[disk("/a", "ready"), disk("/b", "failed")]))
    assert found['hotshard_disk_up{disk="/a"}'] == 1
    assert found['hotshard_disk_up{disk="/b"}'] == 0
    assert found['hotshard_disk_capacity_bytes{disk="/a"}'] == 100
    assert found['hotshard_disk_limit_bytes{disk="/a"}'] == 90
    assert found['hotshard_disk_used_bytes{disk="/a"}'] == 50
    assert found['hotshard_disk_partial_bytes{disk="/a"}'] == 10
    assert found['hotshard_disk_sealed_shards{disk="/a"}'] == 3


def test_slots_and_memory() -> None:
    counts = SlotCounts(
        total=32, demand_running=1, prefetch_running=2, demand_waiting=3, prefetch_waiting=4
    )
    found = snapshot(
        State(slots=counts, memory_used_bytes=5, memory_limit_bytes=6, warm_jobs=7, ready=True)
    )
    assert found["hotshard_fetch_slots"] == 32
    assert found['hotshard_fetch_slots_running{priority="demand"}'] == 1
    assert found['hotshard_fetch_slots_running{priority="prefetch"}'] == 2
    assert found['hotshard_fetch_slots_waiting{priority="demand"}'] == 3
    assert found['hotshard_fetch_slots_waiting{priority="prefetch"}'] == 4
    assert found["hotshard_memory_used_bytes"] == 5
    assert found["hotshard_memory_limit_bytes"] == 6
    assert found["hotshard_warm_jobs"] == 7
    assert found["hotshard_ready"] == 1


def test_many_datasets_stay_bounded() -> None:
    datasets = [DatasetReport(f"s3://b/{i}/", 1, i) for i in range(DATASETS_MAX + 50)]
    found = snapshot(State(datasets=datasets))
    sizes = {name: v for name, v in found.items() if name.startswith("hotshard_dataset_bytes")}
    assert len(sizes) == DATASETS_MAX + 1
    assert sum(sizes.values()) == sum(dataset.bytes for dataset in datasets)
    assert found['hotshard_dataset_shards{dataset="other"}'] == 50


@dataclass
class Odd:
    """A name that needs escaping."""

    name: str = 's3://b/"x\n\\'
    shards: int = 1
    bytes: int = 1


def test_odd_names_do_not_break_the_format() -> None:
    metrics = Metrics("1")
    metrics.watch(lambda: State(datasets=[Odd()]))
    metrics.refresh()
    assert rb'dataset="s3://b/\"x\n\\"' in metrics.exposition()
