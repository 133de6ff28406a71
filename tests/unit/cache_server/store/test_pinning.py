"""What is asked by uri: pins, evictions, recall."""

from benchmarks.policy.others import Lru
from support.stores import KIB, fill, make_key, make_store, report_of


async def test_a_pin_may_cover_what_another_one_does(tmp_path):
    async with make_store(tmp_path) as store:
        await fill(store, key := make_key("s3://b/x/k", 10))
        await store.pin("s3://b/x/")
        await store.pin("s3://b/x/k")
        assert await store.unpin("s3://b/x/") == ["s3://b/x/k"]
        assert report_of(store, key).pinned
        assert await store.unpin("s3://b/x/k") == []
        assert not report_of(store, key).pinned


async def test_an_unpinned_shard_can_be_evicted_for_room_again(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20, new_policy=Lru) as store:
        await store.pin("s3://b/x/")
        await fill(store, key := make_key("s3://b/x/k", 500 * KIB))
        await store.unpin("s3://b/x/")
        await fill(store, make_key("s3://b/y", 700 * KIB))
        assert not store.contains(key.digest)


async def test_evict_with_and_without_pinned(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        for n in range(6):
            await fill(store, make_key(f"s3://b/x/{n}", 10))
        await store.pin("s3://b/x/3")
        assert await store.evict("s3://b/", include_pinned=False) == (5, 50)
        assert await store.evict("s3://b/", include_pinned=True) == (1, 10)
        assert store.pins == ["s3://b/x/3"]


async def test_recall_of_what_was_never_here(tmp_path):
    async with make_store(tmp_path) as store:
        assert await store.recall("s3://b/k") is None
