import pytest

from cache_server.slots import FetchSlots
from cache_server.status import Parts, Statuses, dataset_namer
from support.cache import cache_world, read
from support.content import content


async def test_the_status_tells_of_all_parts(tmp_path):
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("train/a", content(1000))
        await read(world, uri)
        parts = Parts(
            world.cache, world.store, FetchSlots(4, 2), world.cache._transient, world.warmer
        )
        statuses = Statuses(parts, world.metrics, "1.2.3")
        report = statuses.status()
        assert (report.version, report.ready) == ("1.2.3", False)
        assert report.node_id == world.store.node_id
        assert list(report.origins) == ["s3://memory/"]
        assert [disk.sealed_shards for disk in report.disks] == [1]
        assert report.counters["hotshard_fetch_slots"] == 4
        statuses.unready = ""
        assert statuses.status().ready
        assert statuses.state().ready


@pytest.mark.parametrize(
    ("uri", "dataset"),
    [
        ("s3://b/train/x/1.tar", "s3://b/train/"),
        ("s3://b/file", "s3://b/"),
        ("s3://b/deep/er/one/1", "s3://b/deep/er/one/"),
        ("s3://b/deep/er/1", "s3://b/deep/er/"),
        ("file:///fsx/set/1", "file:///fsx/set/"),
        ("s3://other/1", ""),
    ],
)
def test_a_dataset_is_the_directory_below_the_longest_origin(uri, dataset):
    assert dataset_namer(["s3://b/", "s3://b/deep/er/", "file:///fsx/"])(uri) == dataset
