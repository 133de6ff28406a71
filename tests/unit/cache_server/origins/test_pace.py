import asyncio

from cache_server.origins.pace import Pace


async def test_no_more_run_than_the_limit_and_all_get_their_turn():
    pace = Pace(8)
    running, most, done = 0, 0, 0

    async def work():
        nonlocal running, most, done
        async with pace.turn():
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            done += 1

    async def crowd():
        async with asyncio.TaskGroup() as group:
            for _ in range(100):
                group.create_task(work())

    await crowd()
    assert (most, done) == (8, 100)
    pace.slowed_down()
    most = done = 0
    await crowd()
    assert (most, done) == (4, 100)


async def test_a_cancelled_wait_takes_nobodys_turn():
    pace = Pace(1)
    gate = asyncio.Event()

    async def work():
        async with pace.turn():
            await gate.wait()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        gate.set()
    assert [task.cancelled() for task in tasks] == [False, True, False]
    async with pace.turn():
        pass
