import asyncio
import os

import pytest

from cache_server.origins.table import Mounted
from cache_server.slots import FetchSlots
from cache_server.tasks import Tasks
from cache_server.transient import Transient
from hotshard.core.blocks import Geometry
from hotshard.core.errors import Overloaded, StaleObject
from support.content import content
from support.memory_origin import MemoryOrigin

BLOCK = 4096
GEOMETRY = Geometry(shard_bytes=8 * BLOCK, block_bytes=BLOCK)


@pytest.fixture
async def world():
    async with asyncio.TaskGroup() as group:
        transient = Transient(
            3 * BLOCK,
            geometry=GEOMETRY,
            slots=FetchSlots(8, 4),
            spawn=Tasks(group).spawn,
            on_bytes=lambda _uri, _source, _size: None,
        )
        yield MemoryOrigin(), transient


async def block(world, uri, offset):
    origin, transient = world
    file, start, length = await transient.block(Mounted(origin), origin.info(uri), offset)
    return os.pread(file.fd, length, 0), start, length


async def test_a_block_is_fetched_once_and_shared(world):
    origin, transient = world
    data = content(2 * BLOCK + 10)
    uri = origin.put("a", data)
    assert await block(world, uri, BLOCK + 5) == (data[BLOCK : 2 * BLOCK], BLOCK, BLOCK)
    assert await block(world, uri, 2 * BLOCK) == (data[2 * BLOCK :], 2 * BLOCK, 10)
    await block(world, uri, BLOCK)
    assert origin.asked["GET"] == 2
    assert transient.used_bytes == BLOCK + 10


async def test_memory_stays_within_the_budget(world):
    """SEMANTICS 7: memory is bounded by one budget."""
    origin, transient = world
    uri = origin.put("a", content(20 * BLOCK))
    for i in range(20):
        await block(world, uri, i * BLOCK)
        assert transient.used_bytes <= transient.budget_bytes
    assert origin.asked["GET"] == 20


async def test_a_budget_taken_by_fetches_is_said_with_when_to_come_back(world):
    origin, _transient = world
    uri = origin.put("a", content(20 * BLOCK))
    origin.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(block(world, uri, i * BLOCK)) for i in range(3)]
        while origin.fetching < 3:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded) as overloaded:
            await block(world, uri, 7 * BLOCK)
        assert overloaded.value.retry_after_s > 0
        origin.gate.set()
    assert all(task.result()[2] == BLOCK for task in waiting)


async def test_a_failed_fetch_leaves_nothing_behind(world):
    origin, transient = world
    uri = origin.put("a", content(BLOCK))
    info = origin.info(uri)
    origin.put("a", content(BLOCK, 2))
    with pytest.raises(StaleObject):
        await transient.block(Mounted(origin), info, 0)
    assert transient.used_bytes == 0


async def test_a_block_handed_out_outlives_its_place_in_the_budget(world):
    origin, transient = world
    data = content(10 * BLOCK)
    uri = origin.put("a", data)
    file, _, _ = await transient.block(Mounted(origin), origin.info(uri), 0)
    for i in range(10):
        await block(world, uri, i * BLOCK)
    assert os.pread(file.fd, BLOCK, 0) == data[:BLOCK]
