"""Waiting for a condition, not for a time."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    """Come back when it holds; fail when that takes too long."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
