"""Opening shards together."""

import asyncio
import os

from cache_server.store import opening, verify
from support.stores import KIB, crash, fill, make_key, make_store, new_store, opened


async def refilled(tmp_path, count):
    keys = [make_key(f"s3://b/{n}", 10 * KIB) for n in range(count)]
    async with make_store(tmp_path) as store:
        for key in keys:
            await fill(store, key)
    return keys


async def test_order_is_kept_and_what_is_missing_is_none(tmp_path):
    keys = await refilled(tmp_path, 3)
    async with make_store(tmp_path) as store:
        missing = make_key("s3://b/missing", 10).digest
        a, none, b, again = await store.open_many(
            [keys[2].digest, missing, keys[0].digest, keys[2].digest]
        )
        assert none is None
        assert again is a
        assert a is store.cached_fd(keys[2].digest)
        assert b is store.cached_fd(keys[0].digest)


async def test_concurrent_opens_check_a_shard_once(tmp_path, monkeypatch):
    key = make_key("s3://b/k", 100 * KIB)
    store = new_store(tmp_path)
    await store.start()
    await fill(store, key)
    await crash(store)
    checks = []

    def counted(*args):
        checks.append(args)
        return verify.holds(*args)

    monkeypatch.setattr(opening, "holds", counted)
    async with make_store(tmp_path) as store:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(opened(store, key)) for _ in range(8)]
        assert len({task.result().fd for task in tasks}) == 1
        assert len(checks) == 1


async def test_a_cancelled_opener_does_not_disturb_the_others(tmp_path):
    (key,) = await refilled(tmp_path, 1)
    async with make_store(tmp_path) as store:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(store.open(key.digest))
            second = group.create_task(store.open(key.digest))
            await asyncio.sleep(0)
            first.cancel()
        assert second.result() is store.cached_fd(key.digest)


async def test_a_reader_keeps_its_file_over_an_eviction(tmp_path):
    async with make_store(tmp_path) as store:
        content, file = await fill(store, make_key("s3://b/k", 100 * KIB))
        await store.evict("s3://b/k", include_pinned=False)
        assert os.pread(file.fd, 1 << 20, 0) == content
        assert os.fstat(file.fd).st_nlink == 0
