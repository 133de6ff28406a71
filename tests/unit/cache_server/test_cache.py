import asyncio
import errno
import os
import random
from dataclasses import replace

import pytest

from cache_server.opened import Ask, Opened
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied, StaleObject
from support.cache import BLOCK, GEOMETRY, cache_world, read, read_opened

SHARD = GEOMETRY.shard_bytes


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize(
    "size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, SHARD, SHARD + 1, 3 * SHARD + 5]
)
async def test_what_is_read_is_what_the_origin_has_cold_and_hot(tmp_path, size):
    async with cache_world(tmp_path) as world:
        data = content(size)
        uri = world.origin.put("a", data)
        assert await read(world, uri) == data
        cold = world.origin.asked["GET"]
        assert await read(world, uri) == data
        assert world.origin.asked["GET"] == cold
        assert world.origin.fetched_bytes == size


async def test_a_range_fetches_its_blocks_and_no_more(tmp_path):
    async with cache_world(tmp_path) as world:
        data = content(SHARD)
        uri = world.origin.put("a", data)
        got = await world.cache.open(uri, "", 3 * BLOCK + 10, 20)
        assert read_opened(got, 3 * BLOCK + 10, 20) == data[3 * BLOCK + 10 :][:20]
        assert [offset for _, offset, _ in world.origin.fetched] == [3 * BLOCK]


async def test_each_block_is_fetched_once_whoever_asks(tmp_path):
    """SEMANTICS 5: each block is read from the origin once, however many ask for it at one time."""
    async with cache_world(tmp_path) as world, asyncio.TaskGroup() as group:
        data = content(2 * SHARD + 100)
        uri = world.origin.put("a", data)
        readers = [group.create_task(read(world, uri)) for _ in range(32)]
        for reader in readers:
            assert await reader == data
        assert world.origin.fetched_bytes == len(data)


async def test_cancelling_readers_disturbs_no_other(tmp_path):
    """SEMANTICS 5: cancelling one of several concurrent readers disturbs none of the others."""
    async with cache_world(tmp_path) as world, asyncio.TaskGroup() as group:
        data = content(SHARD)
        uri = world.origin.put("a", data)
        world.origin.gate = asyncio.Event()
        readers = [group.create_task(read(world, uri)) for _ in range(32)]
        while not world.origin.fetching:
            await asyncio.sleep(0)
        for reader in readers[::2]:
            reader.cancel()
        await asyncio.wait(readers[::2])
        world.origin.gate.set()
        for reader in readers[1::2]:
            assert await reader == data
        assert world.origin.fetched_bytes == len(data)


async def test_a_warm_open_is_answered_from_memory(tmp_path):
    async with cache_world(tmp_path) as world:
        data = content(BLOCK)
        uri = world.origin.put("a", data)
        assert world.cache.open_now(uri, "", 0, 10) is None
        await read(world, uri)
        opened = world.cache.open_now(uri, "", 5, 10)
        assert opened is not None
        assert read_opened(opened, 5, 10) == data[5:15]
        assert opened.extents[0].sealed
        assert 0 < opened.lease_s <= 60
        assert world.cache.open_now(uri, "v0", 5, 10) is None
        assert world.cache.open_now(uri, "", BLOCK, 10) is None


async def test_descriptors_given_out_cannot_write(tmp_path):
    """SEMANTICS 9: read-only throughout; descriptors handed to clients cannot write."""
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", content(SHARD))
        partial = await world.cache.open(uri, "", 0, 10)
        assert not partial.extents[0].sealed
        await read(world, uri)
        await world.cache.make_resident(world.origin.info(uri))
        sealed = await world.cache.open(uri, "", 0, 10)
        assert sealed.extents[0].sealed
        for opened in (partial, sealed):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(opened.extents[0].file.fd, b"x", 0)
            with pytest.raises(OSError, match=r"Invalid argument|Bad file"):
                os.ftruncate(opened.extents[0].file.fd, 0)
            # Opened anew through /proc by another user, it could not be written either.
            assert not os.fstat(opened.extents[0].file.fd).st_mode & 0o222


async def test_an_object_that_changes_half_way_is_stale_and_never_mixed(tmp_path):
    """SEMANTICS 1: a handle whose object changed fails with StaleObject and never mixes versions."""
    async with cache_world(tmp_path) as world:
        old, new = content(3 * SHARD, 1), content(3 * SHARD, 2)
        uri = world.origin.put("a", old)
        half = await read(world, uri, 0, SHARD)
        assert half == old[:SHARD]
        world.origin.put("a", new)
        with pytest.raises(StaleObject):
            await read(world, uri, 2 * SHARD, SHARD, version="v1")
        assert await read(world, uri) == new
        with pytest.raises(StaleObject):
            await world.cache.open(uri, "v1", 2 * SHARD, 1)


async def test_a_failed_block_fails_its_readers_and_is_fetched_anew(tmp_path):
    async with cache_world(tmp_path) as world:
        data = content(SHARD)
        uri = world.origin.put("a", data)
        await world.cache.stat(uri)
        world.origin.down = OriginUnavailable("away")
        with pytest.raises(OriginUnavailable):
            await read(world, uri)
        world.origin.down = None
        assert await read(world, uri) == data


async def test_cached_data_is_served_while_the_origin_is_away_even_after_a_restart(tmp_path):
    """SEMANTICS 6: when the origin fails, cached data is still served."""
    async with cache_world(tmp_path) as world:
        data = content(SHARD + 7)
        origin = world.origin
        uri = origin.put("a", data)
        await world.cache.make_resident(origin.info(uri))
    origin.down = OriginUnavailable("away")
    async with cache_world(tmp_path, origin) as world:
        assert await read(world, uri) == data


async def test_a_defect_in_a_fetch_fails_the_reader_and_leaves_nobody_waiting(tmp_path, caplog):
    def defect(*_):
        raise ZeroDivisionError

    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", content(BLOCK))
        world.origin.before_fetch = defect
        with pytest.raises(OSError, match="ZeroDivisionError"):
            await read(world, uri)
        world.origin.before_fetch = None
        assert await read(world, uri) == content(BLOCK)


async def test_no_room_on_disk_costs_speed_only(tmp_path):
    """SEMANTICS 6: a full disk costs speed; the bytes are served from memory instead."""
    async with cache_world(tmp_path, capacity_bytes=SHARD) as world:
        data = content(4 * SHARD)
        small = world.origin.put("small", content(BLOCK))
        await read(world, small)
        await world.cache.pin(small)
        big = world.origin.put("big", data)
        assert await read(world, big) == data
        assert world.cache._transient.used_bytes <= world.cache._transient.budget_bytes
        opened = await world.cache.open(big, "", 0, 10)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(opened.extents[0].file.fd, b"x", 0)


async def test_a_disk_that_fills_up_in_the_middle_costs_speed_only(tmp_path):
    """SEMANTICS 7: ENOSPC means bypass, never an error for the reader."""

    async with cache_world(tmp_path) as world:
        data = content(SHARD)
        uri = world.origin.put("a", data)
        seen: list[int] = []

        def fail_later(want, target):
            seen.append(want.offset)
            on_disk = os.readlink(f"/proc/self/fd/{target.fd}").startswith(str(tmp_path))
            if on_disk and 2 <= len(seen) <= 6:
                raise OSError(errno.ENOSPC, "No space left on device")

        world.origin.before_fetch = fail_later
        assert await read(world, uri) == data


async def test_eviction_keeps_open_files_valid(tmp_path):
    """SEMANTICS 4: eviction only unlinks; a file that a reader holds stays valid."""
    async with cache_world(tmp_path) as world:
        data = content(SHARD)
        uri = world.origin.put("d/a", data)
        await read(world, uri)
        await world.cache.make_resident(world.origin.info(uri))
        opened = await world.cache.open(uri, "", 0, 1)
        assert await world.cache.evict("s3://memory/d/") == (1, SHARD)
        assert read_opened(opened, 0, SHARD) == data
        explained = await world.cache.explain(uri)
        assert [shard.state for shard in explained.shards] == ["absent"]
        assert await read(world, uri) == data


async def test_more_than_fits_evicts_and_still_reads_right(tmp_path):
    async with cache_world(tmp_path, capacity_bytes=8 * SHARD) as world:
        uris = [world.origin.put(f"{i}", content(SHARD, i)) for i in range(30)]
        for _ in range(2):
            for i, uri in enumerate(uris):
                assert await read(world, uri) == content(SHARD, i)
        assert sum(disk.used_bytes for disk in world.store.disks()) <= 8 * SHARD


async def test_epochs_over_more_than_fits(tmp_path):
    """SEMANTICS 13: a dataset that is read once per epoch and does not fit keeps a fixed part; the rest is
    passed on from memory. SEMANTICS 13: what is not kept is never written to the disk."""
    async with cache_world(tmp_path, capacity_bytes=8 * SHARD) as world:
        bodies = {world.origin.put(f"{i}", content(SHARD, i)): content(SHARD, i) for i in range(20)}
        counts = []
        for epoch in range(4):
            order = list(bodies)
            random.Random(epoch).shuffle(order)
            fetched, sealed = world.origin.fetched_bytes, world.count("hotshard_sealed_bytes_total")
            for uri in order:
                assert await read(world, uri) == bodies[uri]
            fetched = world.origin.fetched_bytes - fetched
            counts.append((fetched, world.count("hotshard_sealed_bytes_total") - sealed))
            assert not any(fill for fill in world.cache.fills)
        assert counts == [(20 * SHARD, 8 * SHARD), *[(12 * SHARD, 0)] * 3]
        (report,) = world.store.datasets()
        assert (report.shards, report.bytes, report.streaming) == (8, 8 * SHARD, True)
        assert report.streamed_shards == 12  # epochs of less than a minute are one visit to each
        told = [(await world.cache.explain(uri)).last_miss for uri in bodies]
        assert sum("not kept" in each for each in told) == 12


async def test_partial_shards_nobody_came_back_to_do_not_crowd_out_sealed_ones(tmp_path):
    async with cache_world(tmp_path, capacity_bytes=16 * SHARD) as world:
        for i in range(60):
            uri = world.origin.put(f"{i}", content(SHARD, i))
            await world.cache.open(uri, "", 3 * BLOCK, 1)
        # What is given up is given up in the background, a quarter of the capacity stays.
        while sum(disk.partial_bytes for disk in world.store.disks()) > 4 * SHARD:
            await asyncio.sleep(0.001)


async def test_open_many_answers_each_with_its_file_or_its_error(tmp_path):
    async with cache_world(tmp_path) as world:
        uris = [world.origin.put(f"{i}", content(100 + i, i)) for i in range(50)]
        asks = [Ask(uri, "", 0, 1 << 20) for uri in [*uris, "s3://memory/none", "s3://other/y"]]
        for _ in range(2):
            answers = await world.cache.open_many(asks)
            for i, answer in enumerate(answers[:50]):
                assert isinstance(answer, Opened)
                assert read_opened(answer, 0, 1 << 20) == content(100 + i, i)
            assert isinstance(answers[50], NotFound)
            assert isinstance(answers[51], PermissionDenied)
        assert world.origin.asked["GET"] == 50


async def test_sequential_reading_reads_ahead_random_does_not(tmp_path):
    async with cache_world(tmp_path, slots=2) as world:
        uri = world.origin.put("a", content(4 * SHARD))
        await world.cache.open(uri, "", 0, 100)
        await world.cache.open(uri, "", BLOCK, 100)
        while len(world.origin.fetched) < 4:
            await asyncio.sleep(0.001)
        assert max(offset for _, offset, _ in world.origin.fetched) >= 3 * BLOCK
        other = world.origin.put("b", content(4 * SHARD))
        for block in (9, 20, 2, 27):
            await world.cache.open(other, "", block * BLOCK, 10)
        got = [offset // BLOCK for uri, offset, _ in world.origin.fetched if uri == other]
        assert sorted(got) == [2, 9, 20, 27]


async def test_sequential_reading_from_memory_reads_ahead_random_does_not(tmp_path):
    async with cache_world(tmp_path, capacity_bytes=SHARD, memory_bytes=16 * BLOCK) as world:
        small = world.origin.put("small", content(BLOCK))
        await read(world, small)
        await world.cache.pin(small)  # leaves no room for a shard
        data = content(2 * SHARD)
        uri = world.origin.put("big", data)
        other = world.origin.put("other", data)
        for block in (5, 14, 2, 10):
            await world.cache.open(other, "", block * BLOCK, 10)
        await world.cache.open(uri, "", 0, 100)
        while (uri, BLOCK, BLOCK) not in world.origin.fetched:
            await asyncio.sleep(0.001)
        assert await read(world, uri) == data
        fetched = [(each, offset // BLOCK) for each, offset, _ in world.origin.fetched]
        assert sorted(block for each, block in fetched if each == uri) == list(range(16))
        assert sorted(block for each, block in fetched if each == other) == [2, 5, 10, 14]
        assert "no disk space" in (await world.cache.explain(uri)).last_miss


async def test_reading_past_the_end_gives_nothing(tmp_path):
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", b"123")
        assert (await world.cache.open(uri, "", 3, 10)).extents == ()
        assert (await world.cache.open(uri, "", 1 << 50, 10)).extents == ()
        assert (await world.cache.open(uri, "", 0, 0)).extents == ()


async def test_explain_says_where_things_are(tmp_path):
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", content(2 * SHARD))
        assert [s.state for s in (await world.cache.explain(uri)).shards] == ["absent"] * 2
        await world.cache.open(uri, "", SHARD + 3 * BLOCK, 10)
        explained = await world.cache.explain(uri)
        assert [s.state for s in explained.shards] == ["absent", "partial"]
        assert explained.shards[1].present_bytes == BLOCK
        assert explained.shards[1].present == [range(3, 4)]
        assert explained.last_miss
        await world.cache.make_resident(world.origin.info(uri))
        explained = await world.cache.explain(uri)
        assert [s.state for s in explained.shards] == ["sealed"] * 2


async def test_lookups_are_counted(tmp_path):
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", content(BLOCK))
        await read(world, uri)
        world.cache.open_now(uri, "", 0, 1)
        assert world.count('hotshard_shard_lookups_total{result="miss"}') == 1
        assert world.count('hotshard_shard_lookups_total{result="hit"}') >= 1
        assert world.count('hotshard_fills_total{outcome="sealed"}') == 1


async def test_a_second_attempt_is_no_second_read(tmp_path, monkeypatch):
    async with cache_world(tmp_path) as world:
        data = content(SHARD + 100)
        uri = world.origin.put("a", data)
        fetch, ahead = world.origin.fetch, world.cache._readers.ahead
        bad, noted = [1], []

        async def bad_once(want, target):
            fetched = await fetch(want, target)
            return replace(fetched, checksum=fetched.checksum ^ (bad.pop() if bad else 0))

        def note(info, start, stop):
            noted.append(start)
            return ahead(info, start, stop)

        monkeypatch.setattr(world.origin, "fetch", bad_once)
        monkeypatch.setattr(world.cache._readers, "ahead", note)
        opened = await world.cache.open(uri, "", SHARD, 100)
        assert read_opened(opened, SHARD, 100) == data[SHARD:]
        assert [offset for _, offset, _ in world.origin.fetched] == [SHARD, SHARD]
        assert noted == [SHARD]
