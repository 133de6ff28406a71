import asyncio
import os
from contextlib import asynccontextmanager

import pytest

from cache_server.origins.table import Mounted
from cache_server.slots import FetchSlots
from cache_server.tasks import Tasks
from cache_server.transient import Transient
from hotshard.core.blocks import Geometry
from hotshard.core.errors import OriginUnavailable, Overloaded, StaleObject
from hotshard.openfile import OpenFile
from support.content import content
from support.memory_origin import MemoryOrigin

BLOCK = 4096
GEOMETRY = Geometry(shard_bytes=8 * BLOCK, block_bytes=BLOCK)


@asynccontextmanager
async def transient_world(blocks, slots=None):
    async with asyncio.TaskGroup() as group:
        transient = Transient(
            blocks * BLOCK,
            geometry=GEOMETRY,
            slots=slots or FetchSlots(8, 4),
            spawn=Tasks(group).spawn,
            on_bytes=lambda _uri, _source, _size: None,
        )
        yield MemoryOrigin(), transient


@pytest.fixture
async def world():
    async with transient_world(3) as world:
        yield world


@pytest.fixture
async def roomy():
    async with transient_world(16) as world:
        yield world


async def extents(world, uri, offset, length=1):
    origin, transient = world
    info = origin.info(uri)
    return await transient.extents(Mounted(origin), info, offset, offset + length)


async def block(world, uri, offset):
    (extent,) = await extents(world, uri, offset)
    return os.pread(extent.file.fd, extent.length, 0), extent.object_offset, extent.length


async def until(condition):
    while not condition():  # the test's timeout is the limit
        await asyncio.sleep(0)


def fetched(origin, uri):
    return sorted(offset // BLOCK for each, offset, _ in origin.fetched if each == uri)


async def test_a_block_is_fetched_once_and_shared(world):
    origin, transient = world
    data = content(2 * BLOCK + 10)
    uri = origin.put("a", data)
    assert await block(world, uri, BLOCK + 5) == (data[BLOCK : 2 * BLOCK], BLOCK, BLOCK)
    assert await block(world, uri, 2 * BLOCK) == (data[2 * BLOCK :], 2 * BLOCK, 10)
    await block(world, uri, BLOCK)
    assert origin.asked["GET"] == 2
    assert transient.used_bytes == BLOCK + 10


async def test_a_block_given_out_cannot_be_written_even_by_opening_it_anew(world):
    """SEMANTICS 9: read-only throughout; descriptors handed to clients cannot write."""
    uri = world[0].put("a", content(BLOCK))
    (extent,) = await extents(world, uri, 0)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(extent.file.fd, b"x", 0)
    anew = OpenFile(os.open(f"/proc/self/fd/{extent.file.fd}", os.O_RDWR))
    with pytest.raises(PermissionError):
        os.pwrite(anew.fd, b"x", 0)
    for size in (0, 2 * BLOCK):
        with pytest.raises(PermissionError):
            os.ftruncate(anew.fd, size)


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
        await until(lambda: origin.fetching == 3)
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
        await transient.extents(Mounted(origin), info, 0, 1)
    assert transient.used_bytes == 0


async def test_a_block_handed_out_outlives_its_place_in_the_budget(world):
    origin, _transient = world
    data = content(10 * BLOCK)
    uri = origin.put("a", data)
    (extent,) = await extents(world, uri, 0)
    for i in range(10):
        await block(world, uri, i * BLOCK)
    assert os.pread(extent.file.fd, BLOCK, 0) == data[:BLOCK]


async def test_the_blocks_of_one_open_are_fetched_at_one_time(world):
    origin, _transient = world
    data = content(4 * BLOCK)
    uri = origin.put("a", data)
    origin.gate = asyncio.Event()
    opening = asyncio.create_task(extents(world, uri, BLOCK, 3 * BLOCK))
    await until(lambda: origin.fetching == 2)
    origin.gate.set()
    found = await opening
    assert [(each.object_offset, each.length) for each in found] == [
        (BLOCK, BLOCK),
        (2 * BLOCK, BLOCK),
    ]
    assert b"".join(os.pread(each.file.fd, BLOCK, 0) for each in found) == data[BLOCK : 3 * BLOCK]


async def test_a_second_block_that_does_not_come_leaves_the_first_one(world):
    origin, transient = world
    uri = origin.put("a", content(4 * BLOCK))

    def fail_second(want, _target):
        if want.offset == 2 * BLOCK:
            raise OriginUnavailable("away")

    origin.before_fetch = fail_second
    (only,) = await extents(world, uri, BLOCK, 2 * BLOCK)
    assert only.object_offset == BLOCK
    with pytest.raises(OriginUnavailable):
        await extents(world, uri, 2 * BLOCK)
    assert transient.used_bytes == BLOCK


async def test_a_second_block_without_room_leaves_the_first_one():
    async with transient_world(1) as world:
        uri = world[0].put("a", content(4 * BLOCK))
        (only,) = await extents(world, uri, BLOCK, 2 * BLOCK)
        assert only.object_offset == BLOCK


async def test_a_sequential_reader_finds_the_next_block_there(roomy):
    origin, transient = roomy
    data = content(8 * BLOCK)
    uri = origin.put("a", data)
    assert (await block(roomy, uri, 0))[0] == data[:BLOCK]
    await until(lambda: fetched(origin, uri) == [0, 1])
    for i in range(1, 8):
        assert (await block(roomy, uri, i * BLOCK))[0] == data[i * BLOCK :][:BLOCK]
        assert transient.used_bytes <= transient.budget_bytes
    assert fetched(origin, uri) == list(range(8))  # each once


async def test_a_reader_that_catches_up_with_a_block_ahead_shares_its_flight_as_demand():
    slots = FetchSlots(2, 1)
    async with transient_world(16, slots) as world:
        origin, _ = world
        uri = origin.put("a", content(4 * BLOCK))
        busy = slots.ask(demand=False)  # so what is ahead waits in the queue
        await block(world, uri, 0)
        await until(lambda: slots.counts().prefetch_waiting == 1)
        assert (await block(world, uri, BLOCK))[1] == BLOCK
        slots.release(busy)
        await until(lambda: fetched(origin, uri) == [0, 1, 2, 3])


async def test_nothing_is_fetched_ahead_of_a_random_reader_or_a_member(roomy):
    origin, transient = roomy
    uri = origin.put("a", content(32 * BLOCK))
    for i in (9, 20, 2, 27):
        await block(roomy, uri, i * BLOCK)
    other = origin.put("b", content(8 * BLOCK))
    for i in range(3):
        await transient.extents(
            Mounted(origin), origin.info(other), i * BLOCK, (i + 1) * BLOCK, forwarded=True
        )
    assert transient.used_bytes == 7 * BLOCK  # nothing is on its way, either
    assert fetched(origin, uri) == [2, 9, 20, 27]
    assert fetched(origin, other) == [0, 1, 2]


async def test_nothing_is_fetched_ahead_into_the_next_shard(roomy):
    origin, transient = roomy
    uri = origin.put("a", content(16 * BLOCK))
    for i in range(8):
        await block(roomy, uri, i * BLOCK)
    assert transient.used_bytes == 8 * BLOCK
    assert fetched(origin, uri) == list(range(8))


async def test_nothing_is_fetched_ahead_when_half_of_the_memory_is_on_its_way():
    async with transient_world(8) as world, asyncio.TaskGroup() as group:
        origin, transient = world
        uri = origin.put("a", content(32 * BLOCK))
        origin.gate = asyncio.Event()
        readers = [group.create_task(block(world, uri, i * BLOCK)) for i in (9, 15, 21, 27)]
        await until(lambda: origin.fetching == 4)
        readers.append(group.create_task(block(world, uri, 0)))
        await until(lambda: origin.fetching == 5)
        assert transient.used_bytes == 5 * BLOCK
        origin.gate.set()


@pytest.mark.parametrize("slots", [FetchSlots(16, 8), FetchSlots(9, 1)], ids=["moving", "queued"])
async def test_blocks_ahead_give_way_to_demand(slots):
    """SEMANTICS 7: demand reads outrank prefetch everywhere."""
    async with transient_world(8, slots) as world, asyncio.TaskGroup() as group:
        origin, transient = world
        data = content(64 * BLOCK)
        uri = origin.put("a", data)
        await block(world, uri, 0)
        await until(lambda: fetched(origin, uri) == [0, 1])
        origin.gate = asyncio.Event()
        await block(world, uri, BLOCK)  # and two ahead
        assert transient.used_bytes == 4 * BLOCK
        offsets = [i * BLOCK for i in range(10, 58, 6)]
        readers = [group.create_task(block(world, uri, offset)) for offset in offsets]
        await until(lambda: transient.used_bytes == 8 * BLOCK and origin.fetching == 8)
        origin.gate.set()
        for offset, reader in zip(offsets, readers, strict=True):
            assert await reader == (data[offset:][:BLOCK], offset, BLOCK)
        assert transient.used_bytes == 8 * BLOCK
        assert slots.counts().prefetch_running == slots.counts().prefetch_waiting == 0
        assert 2 not in fetched(origin, uri)
        assert await block(world, uri, 2 * BLOCK) == (data[2 * BLOCK :][:BLOCK], 2 * BLOCK, BLOCK)


async def test_a_cancelled_reader_disturbs_neither_other_readers_nor_what_is_ahead(roomy):
    origin, _transient = roomy
    uri = origin.put("a", content(8 * BLOCK))
    origin.gate = asyncio.Event()
    gone, left = (asyncio.create_task(extents(roomy, uri, 0, 2 * BLOCK)) for _ in range(2))
    await until(lambda: origin.fetching >= 3)  # two for them, at least one ahead
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    origin.gate.set()
    assert len(await left) == 2
    await until(lambda: fetched(origin, uri)[:3] == [0, 1, 2])
    assert len(origin.fetched) == len(set(origin.fetched))
