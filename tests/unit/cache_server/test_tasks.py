import asyncio

from cache_server.tasks import Tasks


async def test_a_failing_task_is_logged_and_ends_no_other(caplog):
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group)
        done = asyncio.Event()

        async def fail() -> None:
            raise ZeroDivisionError

        async def work() -> None:
            await asyncio.sleep(0)
            done.set()

        tasks.spawn(fail())
        tasks.spawn(work())
        await done.wait()
    assert "ZeroDivisionError" in caplog.text


async def test_cancel_ends_all_also_those_started_meanwhile():
    async with asyncio.TaskGroup() as group:
        tasks = Tasks(group)
        ended: list[str] = []

        async def sleeper(name: str, *, starts_another: bool) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)
                if starts_another:
                    tasks.spawn(sleeper("second", starts_another=False))

        tasks.spawn(sleeper("first", starts_another=True))
        await asyncio.sleep(0)
        await tasks.cancel()
    assert ended[0] == "first"
