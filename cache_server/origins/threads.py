"""Threads for blocking calls of the event loop, with little to pay per call.

A call through `concurrent.futures` costs a future with a lock and a condition, a chained asyncio future
and one wake-up of the loop each: about as much Python as fetching a small object takes. Here a call is
one object in a queue, its result one asyncio future, and results that become ready together wake the
loop once.

Threads start as they are needed, up to `threads_max`; the queue is as long as the callers are many, whose
number the fetch slots bound. Use from one event loop only.
"""

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """A call on its way: `future` has its outcome."""

    __slots__ = ("_call", "_cancelled", "_outcome", "_started", "future")

    def __init__(self, call: Callable[[], T], future: "asyncio.Future[T]") -> None:
        self._call = call
        self._cancelled = False
        self._started = False
        self._outcome: tuple[T | None, BaseException | None] = (None, None)
        self.future = future

    def cancel(self) -> bool:
        """Take it back, if no thread has begun with it; else it runs on."""
        self._cancelled = True  # before the look: run() sets and looks in the opposite order
        return not self._started

    def run(self) -> None:
        """In a thread."""
        self._started = True
        if self._cancelled:
            return
        try:
            self._outcome = (self._call(), None)
        except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the caller
            self._outcome = (None, error)

    def deliver(self) -> None:
        """On the loop."""
        if self.future.done():
            return
        value, error = self._outcome
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(value)  # type: ignore[arg-type] # the call's own


class Threads:
    """See the module."""

    def __init__(self, threads_max: int, name: str) -> None:
        self._threads_max = threads_max
        self._name = name
        self._jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._done: deque[Job[Any]] = deque()
        self._waking = False
        self._unfinished = 0
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Queue a call; await the job's future."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        job = Job(call, self._loop.create_future())
        self._unfinished += 1
        if self._unfinished > len(self._threads) < self._threads_max:
            name = f"{self._name}_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(job)
        return job

    def close(self) -> None:
        """End the threads once they are done with what is queued; does not wait. Idempotent."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)

    def _work(self) -> None:
        loop = self._loop
        assert loop is not None, "submit() has set it"
        while (job := self._jobs.get()) is not None:
            job.run()
            self._done.append(job)
            # `_deliver` clears the flag before it empties the queue: what was appended after its last
            # look finds the flag cleared, and wakes the loop again.
            if not self._waking:
                self._waking = True
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            self._unfinished -= 1
            self._done.popleft().deliver()
