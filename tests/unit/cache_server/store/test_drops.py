"""Room for new shards, asked for by many at once."""

import asyncio
import os

from benchmarks.policy.others import Lru
from cache_server.store.options import NoSpace
from support.stores import KIB, fill, make_key, make_store


async def test_concurrent_fills_never_exceed_the_capacity(tmp_path):
    async with make_store(tmp_path, capacity=2 << 20, new_policy=Lru) as store:
        highest = 0

        async def work(first):
            nonlocal highest
            for n in range(first, first + 10):
                await fill(store, make_key(f"s3://b/{n}", 50 * KIB))
                highest = max(highest, store.disks()[0].used_bytes)

        async with asyncio.TaskGroup() as group:
            for worker in range(16):
                group.create_task(work(worker * 10))
        assert highest <= 2 << 20
        assert store.disks()[0].shards > 20
        report = store.disks()[0]
        assert report.used_bytes == report.shards * 52 * KIB
        on_disk = [n for _, _, names in os.walk(tmp_path / "disk0" / "sealed") for n in names]
        assert len(on_disk) == report.shards


async def test_partials_are_not_evicted(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        partials = []
        refused = 0
        for n in range(20):
            try:
                partials.append(await store.begin(make_key(f"s3://b/{n}", 100 * KIB)))
            except NoSpace:
                refused += 1
        assert (len(partials), refused) == (10, 10)
        for partial in partials:
            await store.discard(partial)


async def test_a_cancelled_fill_gives_its_room_back(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.begin(make_key("s3://b/k", 900 * KIB)))
            await asyncio.sleep(0)
            task.cancel()
        assert store.disks()[0].partial_bytes == 0
        await fill(store, make_key("s3://b/k", 900 * KIB))
