"""A pool of threads that grows when it is needed, up to a limit. Jobs see to their own errors."""

import threading
from collections import deque
from collections.abc import Callable

Job = Callable[[], None]


class Pool:
    """Runs jobs on at most `threads` threads, in the order of submission."""

    def __init__(self, threads: int) -> None:
        self._limit = threads
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Job) -> None:
        """Run a job soon. Request slots, and one listing a directory, bound what may wait."""
        with self._wake:
            self._jobs.append(job)
            if self._idle >= len(self._jobs):
                self._wake.notify()
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name="worker", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._idle += 1
                while not self._jobs:
                    self._wake.wait()
                self._idle -= 1
                job = self._jobs.popleft()
            job()
