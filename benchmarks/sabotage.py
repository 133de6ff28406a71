"""Faults put into our own side on purpose, so that every row can show that it is able to fail.

A row passes whatever it reads with through `wrap_into` or `wrap_bytes`. Without sabotage these give the
function back as it is, so nothing is added to a timed loop. The harness' tests run every row under every
sabotage and expect a failure each time; `run --sabotage slow` shows the same by hand.
"""

import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

Buffer = bytearray | memoryview
ReadInto = Callable[[str, Buffer, int], int]
"""(uri, buffer, offset) -> bytes read; fills as much of the buffer as the object has."""

_SLOWER = 4
_READ_SLOWER_S = 1e-3  # at least; beyond what a busy machine adds by itself
_CALL_SLOWER_S = 0.5  # the same for calls that read a lot
_STALL_S = 7.0  # longer than any read may take


class Sabotage(StrEnum):
    """What is done to our side."""

    NONE = "none"
    SLOW = "slow"
    """Every call takes four times as long; a read at least 1 ms more, a call for many at least 0.5 s."""
    FLIP = "flip"
    """The first byte of everything read is wrong."""
    FAT = "fat"
    """The server holds a lot of memory for nothing."""
    LRU = "lru"
    """The cache evicts what was used least recently, and keeps whatever is read."""
    ALONE = "alone"
    """The servers of a cluster do not know each other."""
    STALL = "stall"
    """The first read of each reader takes 7 s longer."""
    UNEVEN = "uneven"
    """One member of a cluster has twice the weight of the others."""

    def wrap(self, call: Callable[P, R]) -> Callable[P, R]:
        """A call that reads nothing itself: it can only be slow."""
        return _slow(call, _CALL_SLOWER_S) if self is Sabotage.SLOW else call

    def wrap_into(self, read: Callable[P, int]) -> Callable[P, int]:
        """A read into the caller's buffer; its last two arguments are buffer and offset."""
        if self is Sabotage.SLOW:
            return _slow(read, _READ_SLOWER_S)
        if self is Sabotage.STALL:
            return _stalling(read)
        if self is not Sabotage.FLIP:
            return read

        def flipped(*args: P.args, **kwargs: P.kwargs) -> int:
            count = read(*args, **kwargs)
            if count:
                memoryview(cast(Buffer, args[-2]))[0] ^= 0xFF
            return count

        return flipped

    def wrap_bytes(self, read: Callable[P, Sequence[bytes]]) -> Callable[P, Sequence[bytes]]:
        """A read that returns bytes."""
        if self is not Sabotage.FLIP:
            return self.wrap(read)

        def flipped(*args: P.args, **kwargs: P.kwargs) -> Sequence[bytes]:
            return [bytes([body[0] ^ 0xFF]) + body[1:] if body else body
                    for body in read(*args, **kwargs)]  # fmt: skip

        return flipped


def _stalling(read: Callable[P, int]) -> Callable[P, int]:
    left_s = [_STALL_S]

    def stalled(*args: P.args, **kwargs: P.kwargs) -> int:
        if left_s:
            time.sleep(left_s.pop())
        return read(*args, **kwargs)

    return stalled


def _slow(call: Callable[P, R], least_s: float) -> Callable[P, R]:
    def slowed(*args: P.args, **kwargs: P.kwargs) -> R:
        begun = time.perf_counter()
        result = call(*args, **kwargs)
        took = time.perf_counter() - begun
        time.sleep(max(least_s, (_SLOWER - 1) * took))
        return result

    return slowed
