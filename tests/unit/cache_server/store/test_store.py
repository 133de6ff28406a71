"""The store's contract on real directories."""

import os
from dataclasses import replace

import pytest

from benchmarks.policy.others import Lru
from cache_server.store.options import NoSpace
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm, Checksum, checksum
from hotshard.core.errors import CorruptData
from support.stores import KIB, content_of, fill, make_key, make_store, opened, report_of, sums_of


async def test_a_sealed_shard_is_there_and_read_only(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/k", 300 * KIB)
        assert not store.contains(key.digest)
        content, file = await fill(store, key)
        assert store.contains(key.digest)
        assert os.pread(file.fd, 1 << 20, 0) == content
        assert await opened(store, key) is file
        assert store.cached_fd(key.digest) is file
        with pytest.raises(OSError, match="Bad file"):
            os.pwrite(file.fd, b"x", 0)
        report = store.describe(key.digest)
        assert report is not None
        assert os.stat(report.path).st_mode & 0o777 == 0o444
        assert (report.size, report.verified, report.open) == (300 * KIB, True, True)


async def test_an_empty_object(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/empty", 0)
        content, file = await fill(store, key)
        assert content == b""
        assert os.fstat(file.fd).st_size == 0


async def test_a_partial_gives_a_read_only_descriptor_too(tmp_path):
    async with make_store(tmp_path) as store:
        partial = await store.begin(make_key("s3://b/k", 5000))
        os.pwrite(partial.file.fd, b"abc", 0)
        assert os.pread(partial.reader.fd, 3, 0) == b"abc"
        with pytest.raises(OSError, match="Bad file"):
            os.pwrite(partial.reader.fd, b"x", 0)
        await store.discard(partial)
        await store.discard(partial)


async def test_clean_restart_keeps_shards_trusted_and_the_node_id(tmp_path):
    key = make_key("s3://b/k", 100 * KIB)
    async with make_store(tmp_path) as store:
        content, _ = await fill(store, key)
        node_id = store.node_id
    async with make_store(tmp_path) as store:
        assert store.node_id == node_id
        assert store.contains(key.digest)
        assert store.cached_fd(key.digest) is None
        assert report_of(store, key).verified
        file = await opened(store, key)
        assert os.pread(file.fd, 1 << 20, 0) == content
        assert store.cached_fd(key.digest) is file


async def test_wrong_bytes_are_not_sealed(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/k", 100 * KIB)
        partial = await store.begin(key)
        os.pwrite(partial.file.fd, b"z" * key.size, 0)
        with pytest.raises(CorruptData):
            await store.seal(partial, [1, 2], Algorithm.XXH3_64, None)
        assert not store.contains(key.digest)
        assert len(os.listdir(tmp_path / "disk0" / "quarantine")) == 1
        await fill(store, key)


async def test_whole_checksum_is_compared(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/k", 200 * KIB)
        content = os.urandom(key.size)
        whole = Checksum(Algorithm.CRC64NVME, checksum(Algorithm.CRC64NVME, content))
        await fill(store, key, content=content, algorithm=Algorithm.CRC64NVME, whole=whole)
        other = make_key("s3://b/other", 200 * KIB)
        with pytest.raises(CorruptData):
            await fill(
                store,
                other,
                content=content,
                algorithm=Algorithm.CRC64NVME,
                whole=replace(whole, value=whole.value ^ 1),
            )


async def test_eviction_makes_room_and_counts(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20, new_policy=Lru) as store:
        keys = [make_key(f"s3://b/{n}", 100 * KIB) for n in range(30)]
        for key in keys:
            await fill(store, key)
            assert store.disks()[0].used_bytes <= 1 << 20
        assert sum(store.contains(key.digest) for key in keys) == len(
            [f for _, _, files in os.walk(tmp_path / "disk0" / "sealed") for f in files]
        )
        assert store.contains(keys[-1].digest)
        assert store.events_seen["evicted"] > 0


async def test_no_space_for_a_shard_larger_than_the_disk(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        await fill(store, small := make_key("s3://b/small", 100))
        with pytest.raises(NoSpace):
            await store.begin(make_key("s3://b/k", 2 << 20))
        assert store.contains(small.digest)


async def test_pinned_shards_stay(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20, new_policy=Lru) as store:
        assert await store.pin("s3://b/keep/") == ["s3://b/keep/"]
        keep = [make_key(f"s3://b/keep/{n}", 100 * KIB) for n in range(4)]
        for key in keep:
            await fill(store, key)
        for n in range(30):
            await fill(store, make_key(f"s3://b/{n}", 100 * KIB))
        assert all(store.contains(key.digest) for key in keep)
        assert await store.evict("s3://b/keep/", include_pinned=False) == (0, 0)
    async with make_store(tmp_path, capacity=1 << 20) as store:
        assert store.pins == ["s3://b/keep/"]
        assert report_of(store, keep[0]).pinned
        assert await store.unpin("s3://b/keep/") == []
        assert not report_of(store, keep[0]).pinned
        assert await store.evict("s3://b/keep/", include_pinned=False) == (4, 400 * KIB)
        assert not store.contains(keep[0].digest)


async def test_evict_one_object(tmp_path):
    async with make_store(tmp_path) as store:
        a, b = make_key("s3://b/a", 10), make_key("s3://b/ab", 10)
        await fill(store, a)
        await fill(store, b)
        assert await store.evict("s3://b/a", include_pinned=False) == (1, 10)
        assert await store.open_many([a.digest, b.digest, a.digest]) == [
            None,
            store.cached_fd(b.digest),
            None,
        ]
        assert store.disks()[0].used_bytes == 4096


async def test_datasets_are_counted(tmp_path):
    async with make_store(tmp_path) as store:
        await fill(store, make_key("s3://b/x/1", 10))
        await fill(store, make_key("s3://b/x/2", 20))
        await fill(store, make_key("s3://b/y/1", 5))
        seen = {d.name: (d.shards, d.bytes) for d in store.datasets()}
        assert seen == {"s3://b/x/": (2, 30), "s3://b/y/": (1, 5)}


@pytest.mark.parametrize("right", [True, False])
async def test_a_large_shard_is_checked_in_the_pool(tmp_path, right):
    geometry = Geometry(shard_bytes=16 << 20, block_bytes=1 << 20)
    async with make_store(tmp_path, geometry=geometry) as store:
        key = make_key("s3://b/large", 9 << 20, geometry=geometry)
        partial = await store.begin(key)
        content = content_of(key)
        os.pwrite(partial.file.fd, content, 0)
        sums = sums_of(content, Algorithm.XXH3_64, geometry)
        if right:
            file = await store.seal(partial, sums, Algorithm.XXH3_64, None)
            assert os.pread(file.fd, 16 << 20, 0) == content
            return
        os.pwrite(partial.file.fd, b"?" if content[-1:] != b"?" else b"!", key.size - 1)
        with pytest.raises(CorruptData):
            await store.seal(partial, sums, Algorithm.XXH3_64, None)
        assert not store.contains(key.digest)
        assert store.disks()[0].partial_bytes == 0


async def test_the_open_files_are_bounded(tmp_path):
    async with make_store(tmp_path, open_files_max=5) as store:
        keys = [make_key(f"s3://b/{n}", 10) for n in range(20)]
        for key in keys:
            await fill(store, key)
        assert sum(report_of(store, key).open for key in keys) == 5
        assert store.cached_fd(keys[0].digest) is None
        await opened(store, keys[0])
