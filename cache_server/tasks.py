"""The tasks that belong to the server: fills, answers to local requests, warm-ups, the scrub.

All live in one TaskGroup, which the node opens. An error that gets out of such a task is a defect; it is
logged, and the server goes on: a TaskGroup would otherwise end every other task with it.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Tasks:
    """Starts tasks in a TaskGroup and can end those that are left."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task of the server."""
        task = self._group.create_task(_guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel(self) -> None:
        """End all tasks and wait for them. Tasks that they start meanwhile are ended as well."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # the top loop of background tasks
        log.exception("a background task failed")
