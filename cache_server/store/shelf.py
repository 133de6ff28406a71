"""What the parts of the store share: the index, the open files, the pins and the thread pool."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from cache_server.store.index import Index
from cache_server.store.openfiles import OpenFiles
from cache_server.store.pins import Pins

T = TypeVar("T")


class Shelf:
    """Data and a pool; the decisions are elsewhere."""

    def __init__(self, *, open_files_max: int, threads: int) -> None:
        self.index = Index()
        self.files = OpenFiles(open_files_max)
        self.pins = Pins()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store")

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do blocking work in the pool."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Let the threads go; they have nothing left to do."""
        self._pool.shutdown(wait=False)
