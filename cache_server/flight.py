"""Single flight: equal questions at one time share one answer.

The work runs in a task that the server owns, not in the first caller's: a caller that is cancelled takes
nobody else's answer with it. (The naive form, in which the first caller does the work for all, leaves
the others waiting for ever when it is cancelled.)
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from hotshard.core.errors import Overloaded

Spawn = Callable[[Coroutine[Any, Any, None]], None]

Key = TypeVar("Key")
Value = TypeVar("Value")

AGAIN_AFTER_S = 0.1


async def settled(future: "asyncio.Future[Any]") -> None:
    """Wait until a future that others share is done; being cancelled leaves it alone.

    What `asyncio.wait([future])` does, at a third of its cost; it is on the path of every cold read.
    """
    if future.done():
        return
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)


async def result_of(future: "asyncio.Future[Value]") -> Value:
    """What a future that others share comes to.

    Raises:
        Overloaded: it was cancelled. Whoever waits for it was not, and a CancelledError that nobody asked
            for would end its task without a word.
    """
    await settled(future)
    if future.cancelled():
        raise Overloaded("what this waited for was given up", retry_after_s=AGAIN_AFTER_S)
    return future.result()


async def all_settled(futures: Iterable["asyncio.Future[Any]"]) -> None:
    """`settled` for many, with one wait for all."""
    waiter = asyncio.get_running_loop().create_future()
    pending = [future for future in futures if not future.done()]
    left = len(pending)

    def wake(_: object) -> None:
        nonlocal left
        left -= 1
        if not left and not waiter.done():
            waiter.set_result(None)

    for future in pending:
        future.add_done_callback(wake)
    try:
        if pending:
            await waiter
    finally:
        for future in pending:
            future.remove_done_callback(wake)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Settle a future that perhaps nobody waits for."""
    if not future.done():
        future.set_exception(error)
        future.exception()  # looked at, so that asyncio does not warn of it


class Flights(Generic[Key, Value]):
    """The flights under way, by key."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._flights: dict[Key, asyncio.Future[Value]] = {}

    def __contains__(self, key: Key) -> bool:
        """Whether there is one for `key`."""
        return key in self._flights

    async def join(self, key: Key, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Take part in the flight for `key`, starting it if there is none."""
        landed = self._flights.get(key)
        if landed is None:
            landed = asyncio.get_running_loop().create_future()
            self._flights[key] = landed
            self._spawn(self._fly(key, work, landed))
        return await result_of(landed)

    async def _fly(
        self,
        key: Key,
        work: Callable[[], Coroutine[Any, Any, Value]],
        landed: "asyncio.Future[Value]",
    ) -> None:
        try:
            value = await work()
        except asyncio.CancelledError:
            landed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            fail(landed, error)
        else:
            landed.set_result(value)
        finally:
            del self._flights[key]
