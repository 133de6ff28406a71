import asyncio

import pytest

from cache_server.slots import FetchSlots


async def test_demand_goes_first_and_prefetch_leaves_room():
    slots = FetchSlots(4, prefetch_total=2)
    prefetches = [slots.ask(demand=False) for _ in range(5)]
    assert [t.granted.done() for t in prefetches] == [True, True, False, False, False]
    demands = [slots.ask(demand=True) for _ in range(3)]
    assert [t.granted.done() for t in demands] == [True, True, False]
    slots.release(prefetches[0])
    assert demands[2].granted.done()
    assert not prefetches[2].granted.done()
    slots.release(demands[0])
    assert prefetches[2].granted.done()


async def test_a_waiting_prefetch_can_become_demand():
    slots = FetchSlots(2, prefetch_total=1)
    running = slots.ask(demand=False)
    queued, behind = slots.ask(demand=False), slots.ask(demand=False)
    slots.promote(behind)
    assert behind.granted.done()
    assert not queued.granted.done()
    slots.release(behind)
    slots.release(running)
    assert queued.granted.done()


@pytest.mark.parametrize("after_grant", [False, True])
async def test_a_cancelled_wait_gives_its_place_back(after_grant):
    slots = FetchSlots(1, prefetch_total=1)
    held = slots.ask(demand=True)
    async with asyncio.TaskGroup() as group:
        waiting = slots.ask(demand=True)
        task = group.create_task(slots.acquire(waiting))
        await asyncio.sleep(0)
        if after_grant:
            slots.release(held)
            task.cancel()
        else:
            task.cancel()
            await asyncio.wait([task])
            slots.release(held)
    assert slots.counts().demand_running == 0
    assert slots.counts().demand_waiting == 0
    assert slots.ask(demand=False).granted.done()


async def test_counts():
    slots = FetchSlots(2, prefetch_total=1)
    slots.ask(demand=False)
    slots.ask(demand=False)
    slots.ask(demand=True)
    slots.ask(demand=True)
    counts = slots.counts()
    assert (counts.prefetch_running, counts.prefetch_waiting) == (1, 1)
    assert (counts.demand_running, counts.demand_waiting) == (1, 1)


@pytest.mark.parametrize("prefetch_total", [0, 5])
def test_a_senseless_share_is_refused(prefetch_total):
    with pytest.raises(ValueError, match="between 1 and 4"):
        FetchSlots(4, prefetch_total)
