"""Waiting for a condition, not for a time."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PERIOD_S = 0.02
LIMIT_S = 90.0  # for what hangs, and not for what is slow: the machine may have other work


def until(found: Callable[[], T], what: str = "it", limit_s: float = LIMIT_S) -> T:
    """What `found` returns as soon as that is true; fails when it never is."""
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}"
        time.sleep(PERIOD_S)
    return value


async def comes(found: Callable[[], T], what: str = "it", limit_s: float = LIMIT_S) -> T:
    """`until` on an event loop, on which other work goes on."""
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}"
        await asyncio.sleep(PERIOD_S / 4)
    return value
