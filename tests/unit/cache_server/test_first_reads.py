"""Objects that nobody has described: one request where that is likely to do, and never a byte twice."""

import asyncio
import errno
import random

import pytest

from cache_server.first_reads import SMALL_RUN
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied
from support.cache import BLOCK, cache_world, read, read_opened
from support.memory_origin import MemoryOrigin


def filled(count: int = 20, size: int = 100) -> tuple[MemoryOrigin, list[str], list[bytes]]:
    origin = MemoryOrigin()
    bodies = [random.Random(i).randbytes(size + i) for i in range(count)]
    return origin, [origin.put(f"o/{i:03}", body) for i, body in enumerate(bodies)], bodies


async def get_going(world, uris: list[str]) -> None:
    """Let it see that objects are small here; then it may begin with GETs."""
    for uri in uris[:SMALL_RUN]:
        await read(world, uri)
    world.origin.asked.clear()


async def nothing_reserved(world) -> None:
    """Return when no file is being filled."""
    async with asyncio.timeout(10):
        while any(volume.partial_bytes for volume in world.store._disks.ready()):
            await asyncio.sleep(0.001)


async def test_after_a_few_small_objects_the_next_ones_cost_one_request_each(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        for uri, body in zip(uris, bodies, strict=True):
            assert await read(world, uri) == body
        assert origin.asked == {
            "HEAD": SMALL_RUN,
            "GET": SMALL_RUN,
            "FIRST": len(uris) - SMALL_RUN,
        }
        assert [await read(world, uri) for uri in uris] == bodies
        assert origin.fetched_bytes == sum(map(len, bodies))
        assert world.count('hotshard_fills_total{outcome="sealed"}') == len(uris)
        for uri in (uris[0], uris[-1]):
            explained = await world.cache.explain(uri)
            assert explained.shards[0].state == "sealed"
            assert explained.last_miss == "not on this node yet, or evicted"
            assert explained.info == origin.info(uri)
        assert origin.asked["HEAD"] == SMALL_RUN
        await nothing_reserved(world)


async def test_32_readers_of_one_object_are_one_request(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.gate = asyncio.Event()
        readers = [asyncio.create_task(read(world, uris[-1])) for _ in range(32)]
        while not origin.asked["FIRST"]:
            await asyncio.sleep(0)
        stat = asyncio.create_task(world.cache.stat(uris[-1]))  # the same question
        await asyncio.sleep(0)
        readers[0].cancel()  # it began the request, and takes nothing with it
        origin.gate.set()
        assert await asyncio.gather(*readers[1:]) == [bodies[-1]] * 31
        assert await stat == origin.info(uris[-1])
        assert origin.asked == {"FIRST": 1}


async def test_who_is_described_is_not_asked_again(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        await world.cache.stat(uris[-1])
        assert await read(world, uris[-1]) == bodies[-1]
        assert origin.asked == {"HEAD": 1, "GET": 1}


async def test_a_large_object_among_small_ones_is_described_and_its_blocks_are_read_once(tmp_path):
    origin, uris, _ = filled()
    body = random.Random(99).randbytes(3 * BLOCK + 7)
    large, other = origin.put("o/large", body), origin.put("o/larger", body + b"x")
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.fetched_bytes = 0
        assert await read(world, large) == body
        assert origin.asked == {"FIRST": 1, "GET": 4}
        assert origin.fetched_bytes == len(body)
        assert await read(world, other) == body + b"x"  # one large one, and the next is asked for
        assert (origin.asked["HEAD"], origin.asked["FIRST"]) == (1, 1)


@pytest.mark.parametrize("size", [0, 1, BLOCK])
async def test_an_object_of_any_size_up_to_a_block(tmp_path, size):
    origin, uris, _ = filled()
    uri = origin.put("o/it", b"z" * size)
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        assert await read(world, uri) == b"z" * size
        assert origin.asked == {"FIRST": 1}
        assert world.count('hotshard_fills_total{outcome="sealed"}') == SMALL_RUN + bool(size)
        await nothing_reserved(world)


async def test_only_a_read_from_the_beginning_brings_bytes(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        await world.cache.open(uris[-1], "", 0, 0)
        assert origin.asked == {"HEAD": 1}
        assert await read(world, uris[-2], 10, 20) == bodies[-2][10:30]
        assert origin.asked == {"HEAD": 2, "GET": 1}


async def test_what_a_strict_origin_has_is_asked_about_at_every_open(tmp_path):
    origin, uris, _ = filled()
    async with cache_world(tmp_path, origin, first=origin, strict=True) as world:
        await get_going(world, uris)
        await read(world, uris[-1])
        assert origin.asked["FIRST"] == 0


@pytest.mark.parametrize("error", [NotFound, PermissionDenied, OriginUnavailable])
async def test_errors_are_those_of_a_description(tmp_path, error):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        missing = f"{origin.prefix}o/missing"
        if error is not NotFound:
            origin.down = error("no", uri=missing)
        for _ in range(2):
            with pytest.raises(error):
                await read(world, missing)
        assert origin.asked["FIRST"] == (1 if error is NotFound else 2)  # an absence is remembered
        assert origin.asked["HEAD"] == 0
        origin.down = None
        assert await read(world, uris[-1]) == bodies[-1]
        await nothing_reserved(world)


async def test_a_description_without_bytes_is_a_description(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.first_fails = True
        assert await read(world, uris[-1]) == bodies[-1]
        assert origin.asked == {"FIRST": 1, "GET": 1}
        assert await read(world, uris[-2]) == bodies[-2]  # and it is not tried at once again
        assert (origin.asked["FIRST"], origin.asked["HEAD"]) == (1, 1)


async def test_what_is_cached_from_before_a_restart_is_not_fetched_again(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        assert [await read(world, uri) for uri in uris[:-1]] == bodies[:-1]
    origin.asked.clear()
    async with cache_world(tmp_path, origin, first=origin) as world:
        assert [await read(world, uri) for uri in uris[:-1]] == bodies[:-1]
        assert origin.asked == {"HEAD": len(uris) - 1}
        assert await read(world, uris[-1]) == bodies[-1]
        assert origin.asked["FIRST"] == 1


async def test_what_was_forgotten_and_is_cached_is_not_fetched_again(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        assert [await read(world, uri) for uri in uris[:-1]] == bodies[:-1]
        await world.cache.invalidate(uris[7])
        origin.asked.clear()
        assert await read(world, uris[7]) == bodies[7]
        assert origin.asked == {"HEAD": 1}
        assert await read(world, uris[-1]) == bodies[-1]
        assert origin.asked == {"HEAD": 1, "FIRST": 1}


async def test_forgotten_while_it_is_asked_for_is_asked_for_again(tmp_path):
    origin, uris, _ = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.gate = asyncio.Event()
        early = asyncio.create_task(read(world, uris[-1]))
        while not origin.asked["FIRST"]:
            await asyncio.sleep(0)
        await world.cache.invalidate(uris[-1])
        origin.put(uris[-1], b"new")
        late = asyncio.create_task(read(world, uris[-1]))
        while not origin.asked["HEAD"] and origin.asked["FIRST"] < 2:
            await asyncio.sleep(0)
        origin.gate.set()
        assert await late == b"new"
        await early
        assert await read(world, uris[-1]) == b"new"


async def test_without_room_to_spare_it_is_described_first(tmp_path):
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        for volume in world.store._disks.ready():
            volume.limit_bytes = volume.used_bytes + BLOCK - 1
        assert await read(world, uris[-1]) == bodies[-1]
        assert origin.asked == {"HEAD": 1, "GET": 1}


async def test_a_disk_that_cannot_be_written_costs_speed_only(tmp_path):
    origin, uris, bodies = filled()
    failures = [OSError(errno.ENOSPC, "full")]

    def fail_once(*_: object) -> None:
        if failures:
            raise failures.pop()

    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.before_fetch = fail_once
        assert await read(world, uris[-1]) == bodies[-1]
        assert not failures
        assert (origin.asked["FIRST"], origin.asked["HEAD"]) == (1, 1)


async def test_a_listing_that_was_faster_is_believed(tmp_path):
    """And what arrived twice is kept once."""
    origin, uris, bodies = filled()
    async with cache_world(tmp_path, origin, first=origin) as world:
        await get_going(world, uris)
        origin.gate = asyncio.Event()
        slow = asyncio.create_task(read(world, uris[-1]))
        while not origin.asked["FIRST"]:
            await asyncio.sleep(0)
        await world.cache.list_page(origin.prefix, recursive=True, token="", page_size=100)
        origin.gate.set()
        opened = await world.cache.open(uris[-1], "", 0, BLOCK)
        assert read_opened(opened, 0, BLOCK) == bodies[-1]
        assert await slow == bodies[-1]
        await nothing_reserved(world)
        assert world.store.disks()[0].shards == SMALL_RUN + 1
