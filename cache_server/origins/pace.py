"""Requests to one bucket, no more at one time than it bears (core/aimd.py). For the event loop only."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cache_server.core.aimd import Aimd


class Pace:
    """Lets requests through, oldest first."""

    def __init__(self, most: int) -> None:
        self._aimd = Aimd(most)
        self._running = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.slow_downs = 0
        """How often there were too many."""

    @property
    def limit(self) -> int:
        """How many may run now."""
        return self._aimd.limit

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it."""
        if not self.enter():
            await self._wait()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> bool:
        """Take a turn if there is one to be had now; give it back with `leave`."""
        if self._running >= self.limit or self._waiting:
            return False
        self._running += 1
        return True

    def leave(self) -> None:
        """Give a turn back."""
        self._running -= 1
        self._admit()

    def succeeded(self) -> None:
        """A request was answered."""
        self._aimd.succeeded()

    def slowed_down(self) -> None:
        """A request was refused because there are too many."""
        self.slow_downs += 1
        self._aimd.slowed_down(time.monotonic())

    async def _wait(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was given, and is not needed
                self.leave()
            raise

    def _admit(self) -> None:
        while self._waiting and self._running < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._running += 1
                turn.set_result(None)
