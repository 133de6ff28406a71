"""A thread with an event loop of its own, for network work that the server's loop should not carry.

The server's loop hands over coroutines and awaits their outcome, or, where there are very many, plain
functions that begin something. A burst costs one wake-up in each direction. Few such threads cost less
than one thread per request: they do not fight for the interpreter lock each time a system call returns
(docs/adr/0002).
"""

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

import uvloop

from cache_server.flight import settled

log = logging.getLogger(__name__)

# Outcomes of what was posted go back several at a time: a wake-up of the caller for each would have the
# two threads take the interpreter lock from each other at every small object.
_LINGER_S = 0.001
_LINGER_OUTCOMES = 8

T = TypeVar("T")

Landed = Callable[[T | Exception], None]
Begin = Callable[[Landed[T]], Coroutine[Any, Any, T] | None]
"""Begins work in the thread and returns: None, and calls what it was given with the outcome later; or a
coroutine that does it, to be run as a task."""


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

    def land(self) -> None:
        """Back on the caller's loop."""
        if isinstance(self.error, asyncio.CancelledError):
            self.outcome.cancel()
        elif self.error is not None:
            self.outcome.set_exception(self.error)
        else:
            self.outcome.set_result(self.result)  # type: ignore[arg-type] # the work's own


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
        self._inbox: deque[Callable[[], None]] = deque()
        self._outbox: deque[Callable[[], None]] = deque()
        # A wake-up is under way. Cleared before the box is emptied, and set after it was filled: so
        # whatever finds it set is still seen by that wake-up.
        self._inbox_told = self._outbox_told = False
        self._posted = 0  # begun here and without an outcome
        self._lingering: asyncio.TimerHandle | None = None

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
        self._send(partial(self._start, job))
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

    def post(self, begin: Begin[T], landed: Landed[T]) -> None:
        """Begin work over there without a task, and be told of its outcome here.

        What runs when the reactor is closed may have no outcome.
        """
        self._send(partial(self._begin, begin, landed))

    # -- on the caller's loop --------------------------------------------------------------------

    def _send(self, start: Callable[[], None]) -> None:
        self.in_flight += 1
        self._inbox.append(start)
        if not self._inbox_told:
            self._inbox_told = True
            self._loop.call_soon_threadsafe(self._take_in)

    def _give_out(self) -> None:
        self._outbox_told = False
        while self._outbox:
            land = self._outbox.popleft()
            self.in_flight -= 1
            try:
                land()
            except Exception:  # a defect of whoever waited; the others have theirs to come
                log.exception("the outcome of a request")

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
            self._inbox.popleft()()

    def _start(self, job: _Job[Any]) -> None:
        job.task = self._group.create_task(job.run())
        job.task.add_done_callback(partial(self._ended, job))

    def _ended(self, job: _Job[Any], task: asyncio.Task[None]) -> None:
        # Not the end of run(): a task that is cancelled before its first step never enters it.
        if task.cancelled():
            job.error = asyncio.CancelledError()
        self._outbox.append(job.land)
        self._tell()

    def _begin(self, begin: Begin[T], landed: Landed[T]) -> None:
        self._posted += 1

        def ended(outcome: T | Exception) -> None:
            self._posted -= 1
            self._outbox.append(partial(landed, outcome))
            if not self._posted or len(self._outbox) >= _LINGER_OUTCOMES:
                self._tell()
            elif self._lingering is None:
                self._lingering = self._loop.call_later(_LINGER_S, self._tell)

        try:
            work = begin(ended)
        except Exception as error:  # noqa: BLE001 - it belongs to who waits, not to this thread
            ended(error)
            return
        if work is not None:
            self._group.create_task(_finish(work, ended))

    def _tell(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if not self._outbox_told:
            self._outbox_told = True
            with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                self._caller.call_soon_threadsafe(self._give_out)


async def _finish(work: Coroutine[Any, Any, T], ended: Landed[T]) -> None:
    try:
        outcome: T | Exception = await work
    except Exception as error:  # noqa: BLE001 - it belongs to who waits, not to this thread
        outcome = error
    ended(outcome)
