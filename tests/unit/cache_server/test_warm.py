import asyncio

import pytest

from cache_server.warm import JOBS_MAX
from hotshard.core.errors import InvalidRequest, NotFound, OriginUnavailable, Overloaded
from support.cache import GEOMETRY, cache_world
from support.content import content

SHARD = GEOMETRY.shard_bytes


async def finished(world, job_id):
    while not (state := await world.warmer.progress(job_id, 5.0)).done:
        pass
    return state


async def test_objects_and_prefixes_become_resident(tmp_path):
    async with cache_world(tmp_path) as world:
        for i in range(150):
            world.origin.put(f"d/{i:03}", content(100 + i))
        big = world.origin.put("big", content(3 * SHARD + 1))
        state = await finished(world, world.warmer.start(["s3://memory/d/", big]))
        assert (state.planned_objects, state.resident_objects, state.failed_objects) == (
            151,
        ) * 2 + (0,)
        assert state.planned_bytes == state.resident_bytes == world.origin.fetched_bytes
        again = await finished(world, world.warmer.start(["s3://memory/d/", big]))
        assert again.resident_bytes == state.planned_bytes == world.origin.fetched_bytes


async def test_what_failed_is_named(tmp_path):
    """SEMANTICS 10: a warm-up reports what is resident at its end, not what was fetched once."""
    async with cache_world(tmp_path) as world:
        good, bad = world.origin.put("good", b"1"), world.origin.put("bad", b"22")

        def fail(want, _):
            if want.info.uri == bad:
                raise OriginUnavailable("away", uri=bad)

        world.origin.before_fetch = fail
        state = await finished(world, world.warmer.start([good, bad, "s3://memory/none"]))
        assert (state.planned_objects, state.resident_objects, state.failed_objects) == (2, 1, 2)
        assert state.failed_bytes == 2
        assert {type(error) for error in state.failures} == {OriginUnavailable, NotFound}


async def test_more_than_fits_is_not_called_resident(tmp_path):
    """SEMANTICS 10: a warm-up reports what is resident at its end, not what was fetched once."""
    async with cache_world(tmp_path, capacity_bytes=6 * SHARD) as world:
        for i in range(20):
            world.origin.put(f"d/{i:02}", content(SHARD, i))
        state = await finished(world, world.warmer.start(["s3://memory/d/"]))
        held = sum(disk.shards for disk in world.store.disks())
        assert state.resident_objects == held < 20


async def test_progress_comes_at_the_next_change(tmp_path):
    async with cache_world(tmp_path) as world, asyncio.TaskGroup() as group:
        uri = world.origin.put("a", b"1")
        world.origin.gate = asyncio.Event()
        job_id = world.warmer.start([uri])
        waiting = group.create_task(world.warmer.progress(job_id, 60.0))
        assert not (await world.warmer.progress(job_id, 0.01)).done
        world.origin.gate.set()
        assert (await waiting).resident_objects == 1
        assert world.warmer.running <= 1


async def test_demand_goes_before_warming(tmp_path):
    """SEMANTICS 7: demand reads outrank prefetch everywhere."""
    async with cache_world(tmp_path, slots=2) as world:
        for i in range(30):
            world.origin.put(f"d/{i:02}", content(SHARD, i))
        wanted = world.origin.put("wanted", content(100))
        world.origin.gate = asyncio.Event()
        job_id = world.warmer.start(["s3://memory/d/"])
        while not world.origin.fetching:
            await asyncio.sleep(0)
        assert world.origin.fetching_max == 1  # half of the slots
        async with asyncio.TaskGroup() as group:
            read = group.create_task(world.cache.open(wanted, "", 0, 100))
            while world.origin.fetching < 2:
                await asyncio.sleep(0)
            world.origin.gate.set()
        assert read.result().info.size == 100
        place = [uri for uri, _, _ in world.origin.fetched].index(wanted)
        assert place <= 2
        await finished(world, job_id)


async def test_what_is_no_address_or_no_job_is_refused(tmp_path):
    async with cache_world(tmp_path) as world:
        with pytest.raises(InvalidRequest):
            world.warmer.start(["nonsense"])
        with pytest.raises(NotFound, match="no warm-up"):
            await world.warmer.progress("x", 0)


async def test_the_number_of_jobs_is_bounded_and_finished_ones_make_way(tmp_path):
    async with cache_world(tmp_path) as world:
        uri = world.origin.put("a", b"1")
        world.origin.gate = asyncio.Event()
        jobs = [world.warmer.start([uri]) for _ in range(JOBS_MAX)]
        with pytest.raises(Overloaded):
            world.warmer.start([uri])
        world.origin.gate.set()
        for job_id in jobs:
            await finished(world, job_id)
        for _ in range(2 * JOBS_MAX):
            await finished(world, world.warmer.start([uri]))
