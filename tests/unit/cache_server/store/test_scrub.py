"""The slow check of everything."""

import os
import time

from support.stores import KIB, fill, make_key, make_store, report_of, spoiling


def damage(path: str) -> None:
    with spoiling(path) as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 0x80]))


async def scrub_all(store, shards: int) -> int:
    """Two rounds on each disk are enough for every shard."""
    return sum([await store.scrub_one() for _ in range(4 * shards + 8)])


async def test_every_shard_is_checked_and_a_bad_one_goes(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        keys = [make_key(f"s3://b/{n}", 100 * KIB) for n in range(6)]
        for key in keys:
            await fill(store, key)
        assert await scrub_all(store, 6) >= 600 * KIB
        assert all(store.contains(key.digest) for key in keys)
        damage(report_of(store, keys[3]).path)
        await scrub_all(store, 6)
        assert [store.contains(key.digest) for key in keys] == [True] * 3 + [False] + [True] * 2
        assert store.cached_fd(keys[3].digest) is None
        assert store.events_seen["quarantined", "scrub"] == 1


async def test_it_goes_on_to_the_next_block_when_it_is_let(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/a", 150 * KIB)
        await fill(store, key)
        looked = []

        async def pace(size):
            looked.append(size)
            if len(looked) == 2:
                with spoiling(report_of(store, key).path) as file:
                    file.seek(149 * KIB)
                    file.write(b"later, so that only the last block shows it")

        assert await store.scrub_one(0, pace) == 150 * KIB
        assert looked == [64 * KIB, 64 * KIB]
        assert not store.contains(key.digest)


async def test_what_is_evicted_half_way_is_not_held(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/a", 150 * KIB)
        await fill(store, key)
        path = report_of(store, key).path

        async def evict(_size):
            await store.evict("s3://b/a", include_pinned=False)
            held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
            assert path not in held

        assert await store.scrub_one(0, evict) == 0
        assert store.events_seen["quarantined", "scrub"] == 0


async def test_an_empty_store(tmp_path):
    async with make_store(tmp_path) as store:
        assert await store.scrub_one() == 0


async def test_the_round_goes_on_after_a_clean_restart(tmp_path):
    async with make_store(tmp_path) as store:
        for n in range(3):
            await fill(store, make_key(f"s3://b/{n}", 10 + n))
        assert await store.scrub_one() == 10
    async with make_store(tmp_path) as store:
        assert await store.scrub_one() == 11


async def test_a_round_ends_where_shards_are_too_young(tmp_path):
    async with make_store(tmp_path) as store:
        keys = [make_key(f"s3://b/{n}", 10 + n) for n in range(3)]
        for key in keys:
            await fill(store, key)
        assert [await store.scrub_one(60) for _ in range(3)] == [0, 0, 0]
        for key in keys[:2]:
            age(report_of(store, key).path, 61)
        assert [await store.scrub_one(60) for _ in range(5)] == [10, 11, 0, 10, 11]


async def test_a_clock_that_was_set_back_stops_no_round(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/a", 10)
        await fill(store, key)
        age(report_of(store, key).path, -3600)
        assert await store.scrub_one(60) == 10


def age(path: str, by_s: float) -> None:
    os.utime(path, (time.time() - by_s,) * 2)
