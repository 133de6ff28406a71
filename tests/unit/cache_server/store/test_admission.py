"""What comes onto which disk."""

import pytest

from cache_server.store.options import CacheDir, NoSpace, NotAdmitted, Space
from support.stores import KIB, fill, make_key, make_store


async def test_what_does_not_fit_beside_its_own_dataset_is_not_admitted(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        kept = [make_key(f"s3://b/x/{n}", 100 * KIB) for n in range(10)]
        for key in kept:
            assert store.wants(key)
            await fill(store, key)
        more = make_key("s3://b/x/more", 100 * KIB)
        assert not store.wants(more)
        with pytest.raises(NotAdmitted):
            await store.begin(more)
        assert all(store.contains(key.digest) for key in kept)
        assert store.disks()[0].partial_bytes == 0


async def test_what_is_pinned_comes_before_what_is_not(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        for n in range(10):
            await fill(store, make_key(f"s3://b/x/{n}", 100 * KIB))
        await store.pin("s3://b/x/pinned")
        pinned = make_key("s3://b/x/pinned", 300 * KIB)
        assert store.wants(pinned)
        await fill(store, pinned)
        assert store.contains(pinned.digest)
        assert store.events_seen["evicted", "space"] == 1


async def test_another_disk_takes_it_only_if_it_has_free_room(tmp_path):
    dirs = [
        CacheDir(str(tmp_path / f"disk{n}"), Space(size))
        for n, size in ((0, 1 << 20), (1, 1 << 20))
    ]
    async with make_store(tmp_path, dirs=dirs) as store:
        taken = 0
        for n in range(40):
            key = make_key(f"s3://b/x/{n}", 100 * KIB)
            if store.wants(key):
                await fill(store, key)
                taken += 1
        assert taken == 20
        assert [disk.shards for disk in store.disks()] == [10, 10]
        assert store.events_seen["evicted"] == 0


async def test_what_no_disk_can_hold_is_no_matter_of_policy(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        key = make_key("s3://b/x/big", 3 << 20)
        assert store.wants(key)
        with pytest.raises(NoSpace) as refused:
            await store.begin(key)
        assert not isinstance(refused.value, NotAdmitted)


async def test_a_declared_dataset_takes_its_share_of_one_in_use(tmp_path):
    async with make_store(tmp_path, capacity=2 << 20) as store:
        for n in range(20):
            await fill(store, make_key(f"s3://b/x/{n}", 100 * KIB))
        taken = 0
        for n in range(20):
            key = make_key(f"s3://b/y/{n}", 100 * KIB)
            if store.wants(key, declared=True):
                await fill(store, key)
                taken += 1
        assert 16 <= taken <= 18  # nobody has read the other one twice
        assert store.events_seen["evicted", "share"] >= 1
