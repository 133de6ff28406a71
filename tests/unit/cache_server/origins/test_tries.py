"""Tries: counted each, repeated while that is of use."""

import pytest

from cache_server.origins.transfer import TargetFailed
from cache_server.origins.tries import Transient, Tries, counted
from hotshard.core.errors import NotFound, OriginUnavailable

Told = list[tuple[str, str, int]]


def listener(told: Told):
    return lambda verb, outcome, _seconds, size: told.append((verb, outcome, size))


async def test_it_is_tried_until_it_succeeds() -> None:
    told: Told = []
    tries = Tries(listener(told), attempts=3, concurrency=2)
    left = [Transient("once"), Transient("twice")]

    async def attempt() -> str:
        if left:
            raise left.pop()
        return "done"

    assert await tries.until_done("GET", "s3://b/k", attempt, 10) == "done"
    assert told == [("GET", "retry", 0), ("GET", "retry", 0), ("GET", "ok", 10)]


async def test_a_first_try_that_was_made_elsewhere_counts() -> None:
    told: Told = []
    tries = Tries(listener(told), attempts=2, concurrency=2)

    async def attempt() -> None:
        raise Transient("again")

    with pytest.raises(OriginUnavailable, match="failed 2 times, the last time: again"):
        await tries.until_done("GET", "s3://b/k", attempt, failed=Transient("before"))
    assert told == [("GET", "retry", 0)]


async def test_a_long_pause_that_is_asked_for_is_not_waited_for() -> None:
    tries = Tries(listener([]), attempts=5, concurrency=2)

    async def attempt() -> None:
        raise Transient("later", retry_after_s=3600.0, slow_down=True)

    with pytest.raises(OriginUnavailable, match="failed 1 times"):
        await tries.until_done("GET", "s3://b/k", attempt)
    assert tries.pace.limit == 1


def test_how_a_try_ends_is_told() -> None:
    told: Told = []
    with counted(listener(told), "HEAD", 5):
        pass
    with pytest.raises(NotFound), counted(listener(told), "HEAD", 5):
        raise NotFound("no")
    with pytest.raises(OSError, match="full"), counted(listener(told), "GET", 5):
        raise TargetFailed(OSError(28, "full"))
    with pytest.raises(KeyboardInterrupt), counted(listener(told), "GET", 5):
        raise KeyboardInterrupt
    outcomes = [("HEAD", "ok", 5), ("HEAD", "not_found", 0), ("GET", "internal", 0)]
    assert told == [*outcomes, ("GET", "cancelled", 0)]
