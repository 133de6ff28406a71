"""One fetch under way in a worker thread: how it is called off, and how its bytes reach the target file."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from cache_server.flight import settled
from cache_server.origins.origin import Target
from cache_server.origins.threads import Threads
from hotshard.core.checksum import Algorithm, running

T = TypeVar("T")


class Aborted(Exception):
    """Nobody waits for this transfer any more."""


class TargetFailed(Exception):
    """Carries an OSError of the target past those who would take it for one of the origin."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Transfer:
    """What the event loop holds of a request that a thread makes."""

    __slots__ = ("_sock", "aborted")

    def __init__(self) -> None:
        self.aborted = False
        self._sock: socket.socket | None = None

    def attach(self, sock: socket.socket) -> None:
        """Name the socket that an abort must wake up."""
        self._sock = sock  # before the check: abort() sets and reads in the opposite order
        if self.aborted:
            raise Aborted

    def abort(self) -> None:
        """Make the thread stop soon, before its next write; safe from any thread."""
        self.aborted = True
        sock = self._sock
        if sock is not None:
            with contextlib.suppress(OSError):  # already closed
                # Not SSLSocket.shutdown: it drops its state under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class FileSink:
    """Writes bytes in order into a target, and sums them while they are warm."""

    __slots__ = ("_fd", "_offset", "_transfer", "algorithm", "sum")

    def __init__(self, target: Target, algorithm: Algorithm, transfer: Transfer) -> None:
        self._fd = target.fd
        self._offset = target.file_offset
        self._transfer = transfer
        self.algorithm = algorithm
        self.sum = running(algorithm)

    def allocate(self, length: int) -> None:
        """Make room for the bytes that will come.

        Blocks allocated at once cost half of what they cost one by one with the writes (docs/adr/0002).

        Raises:
            TargetFailed: the target has no room for them.
        """
        try:
            os.posix_fallocate(self._fd, self._offset, length)
        except OSError as error:
            raise TargetFailed(error) from error

    def __call__(self, data: memoryview) -> None:
        """Take the next bytes.

        Raises:
            Aborted: nobody waits for them.
            TargetFailed: the target cannot be written.
        """
        if self._transfer.aborted:
            raise Aborted
        self.sum.update(data)
        try:
            while data:
                count = os.pwrite(self._fd, data, self._offset)
                self._offset += count
                data = data[count:]
        except OSError as error:
            raise TargetFailed(error) from error


async def in_thread(
    pool: Threads,
    call: Callable[[], T],
    transfer: Transfer,
    *,
    grace_s: float | None = None,
) -> T:
    """Run a call in the pool; when cancelled, abort its transfer and wait until the thread has stopped.

    Args:
        pool: where to run.
        call: what to run.
        transfer: what the call checks before it writes.
        grace_s: how long to wait for the thread; None: for ever, as its own timeouts bound that.
    """
    job = pool.submit(call)
    try:
        await settled(job.future)
    except asyncio.CancelledError:
        transfer.abort()
        if not job.cancel():
            await _stopped(job.future, grace_s)
        raise
    return job.future.result()


async def _stopped(waiter: asyncio.Future[T], grace_s: float | None) -> None:
    """Wait, however often the waiting task is cancelled: the target must not be written afterwards."""
    deadline = None if grace_s is None else time.monotonic() + grace_s
    waiter.add_done_callback(_retrieve)
    while not waiter.done() and (deadline is None or time.monotonic() < deadline):
        left = None if deadline is None else deadline - time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([waiter], timeout=left)


def _retrieve(waiter: asyncio.Future[T]) -> None:
    if not waiter.cancelled():
        waiter.exception()  # looked at, so that asyncio does not warn of it
