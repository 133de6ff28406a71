"""The pool that the parts share."""

import threading

from cache_server.store.shelf import Shelf


async def test_work_runs_in_the_pool():
    shelf = Shelf(open_files_max=1, threads=1)
    assert await shelf.run(threading.current_thread) is not threading.main_thread()
    shelf.close()
