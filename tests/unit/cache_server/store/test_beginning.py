"""Files that are begun before it is known what they will hold."""

import asyncio
import os
from collections import Counter

from hotshard.core.checksum import Algorithm
from support.stores import KIB, content_of, fill, make_key, make_store, sums_of


async def test_an_unnamed_file_takes_room_for_all_it_may_hold_and_gives_it_back(tmp_path):
    async with make_store(tmp_path) as store:
        partial = await store.begin_unnamed("s3://b/x/1", 64 * KIB)
        assert partial is not None
        assert store.disks()[0].partial_bytes == 64 * KIB
        key = make_key("s3://b/x/1", 5 * KIB)
        store.name(partial, key)
        assert store.disks()[0].partial_bytes == 8 * KIB  # in whole pages
        content = content_of(key)
        os.pwrite(partial.file.fd, content, 0)
        file = await store.seal(
            partial, sums_of(content, Algorithm.XXH3_64), Algorithm.XXH3_64, None
        )
        assert os.pread(file.fd, 10 * KIB, 0) == content
        assert store.contains(key.digest)
        assert store.disks()[0].partial_bytes == 0
        await store.discard(partial)  # it is sealed: nothing happens
        assert await store.open(key.digest) is not None


async def test_an_unnamed_file_that_is_given_up_leaves_nothing(tmp_path):
    async with make_store(tmp_path) as store:
        partial = await store.begin_unnamed("s3://b/x/1", 64 * KIB)
        assert partial is not None
        await store.discard(partial)
        async with asyncio.timeout(10):
            while store.disks()[0].partial_bytes:
                await asyncio.sleep(0.001)
        assert not os.path.exists(partial.path)


async def test_nothing_is_evicted_for_an_unnamed_file(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        keys = [make_key(f"s3://b/x/{n}", 100 * KIB) for n in range(10)]
        for key in keys:
            await fill(store, key)
        assert await store.begin_unnamed("s3://b/y/1", 64 * KIB) is None
        assert all(store.contains(key.digest) for key in keys)
        assert store.disks()[0].partial_bytes == 0
        assert await store.begin_unnamed("s3://b/y/1", 16 * KIB) is not None


async def test_unnamed_files_are_spread_over_the_disks(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        made = [await store.begin_unnamed(f"s3://b/x/{n}", KIB) for n in range(100)]
        counts = Counter(partial.volume.path for partial in made if partial is not None)
        assert sum(counts.values()) == 100
        assert min(counts.values()) > 20


async def test_only_what_was_sealed_by_somebody_before_is_found(tmp_path):
    async with make_store(tmp_path) as store:
        await fill(store, make_key("s3://b/x/1", KIB))
        assert not store.found_shards
    async with make_store(tmp_path) as store:
        assert store.found_shards
