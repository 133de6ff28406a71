"""A thread with an event loop of its own, for network work that the server's loop should not carry.

The server's loop hands over coroutines and awaits their outcome; a burst costs one wake-up in each
direction. Few such threads cost less than one thread per request: they do not fight for the interpreter
lock each time a system call returns (docs/adr/0002).
"""

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import uvloop

from cache_server.flight import settled

T = TypeVar("T")


class _Job(Generic[T]):
    """A coroutine to run over there, and who waits for it here."""

    __slots__ = ("error", "outcome", "result", "task", "work")

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, T]], outcome: asyncio.Future[T]
    ) -> None:
        self.work = work
        self.outcome = outcome
        self.task: asyncio.Task[None] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None

    async def run(self) -> None:
        """In the thread."""
        try:
            self.result = await self.work()
        except Exception as error:  # noqa: BLE001 - it belongs to who waits, not to this thread
            self.error = error

    def cancel(self) -> None:
        """In the thread, and so after its task was made."""
        if self.task:
            self.task.cancel()


class Reactor:
    """One thread. Used from the loop that calls `start`, and from no other."""

    def __init__(self, name: str) -> None:
        self.in_flight = 0
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._caller: asyncio.AbstractEventLoop
        self._group: asyncio.TaskGroup
        self._stopping: asyncio.Event
        self._inbox: deque[_Job[Any]] = deque()
        self._outbox: deque[_Job[Any]] = deque()
        # A wake-up is under way. Cleared before the box is emptied, and set after it was filled: so
        # whatever finds it set is still seen by that wake-up.
        self._inbox_told = self._outbox_told = False

    def start(self) -> None:
        """Start the thread."""
        self._caller = asyncio.get_running_loop()
        self._thread.start()
        self._ready.wait()

    async def close(self) -> None:
        """Cancel what runs, and wait for the end of the thread; idempotent. Then run nothing more."""
        if self._ready.is_set():
            self.call(self._stopping.set)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def call(self, function: Callable[[], None]) -> None:
        """Call a plain function over there; nobody waits."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(function)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine over there; when cancelled, cancel it and wait until it has ended."""
        job: _Job[T] = _Job(work, self._caller.create_future())
        self.in_flight += 1
        self._inbox.append(job)
        if not self._inbox_told:
            self._inbox_told = True
            self._loop.call_soon_threadsafe(self._take_in)
        try:
            await settled(job.outcome)
        except asyncio.CancelledError:
            self.call(job.cancel)
            while not job.outcome.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await settled(job.outcome)
            if not job.outcome.cancelled():
                job.outcome.exception()  # looked at, so that asyncio does not warn of it
            raise
        return job.outcome.result()

    # -- on the caller's loop --------------------------------------------------------------------

    def _give_out(self) -> None:
        self._outbox_told = False
        while self._outbox:
            job = self._outbox.popleft()
            self.in_flight -= 1
            if isinstance(job.error, asyncio.CancelledError):
                job.outcome.cancel()
            elif job.error is not None:
                job.outcome.set_exception(job.error)
            else:
                job.outcome.set_result(job.result)

    # -- in the thread ---------------------------------------------------------------------------

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        async with asyncio.TaskGroup() as self._group:
            self._ready.set()
            await self._stopping.wait()
            self._take_in()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await asyncio.sleep(0)  # aborted connections close in the next turn

    def _take_in(self) -> None:
        self._inbox_told = False
        while self._inbox:
            job = self._inbox.popleft()
            job.task = self._group.create_task(job.run())
            job.task.add_done_callback(functools.partial(self._ended, job))

    def _ended(self, job: _Job[Any], task: asyncio.Task[None]) -> None:
        # Not the end of run(): a task that is cancelled before its first step never enters it.
        if task.cancelled():
            job.error = asyncio.CancelledError()
        self._outbox.append(job)
        if not self._outbox_told:
            self._outbox_told = True
            with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                self._caller.call_soon_threadsafe(self._give_out)
