"""Waiting for a condition, not for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PERIOD_S = 0.02


def until(found: Callable[[], T], what: str = "it", limit_s: float = 30.0) -> T:
    """What `found` returns as soon as that is true; fails when it takes too long."""
    deadline = time.monotonic() + limit_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited {limit_s:g} s for {what}"
        time.sleep(PERIOD_S)
    return value
