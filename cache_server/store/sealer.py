"""The thread of one disk: everything that changes sealed files or their records goes through it, in order.

Jobs queue up while it works, and all that have queued make one batch: first each job's `prepare` (check
the content, unlink), then one transaction with every `record`, then each `finish` (rename), then one
wake-up of the event loop that delivers the whole batch. Under load a commit and a wake-up are shared by
up to BATCH_MAX shards: after a batch of several jobs the next one is given LINGER_S to grow to
LINGER_JOBS. Alone, a job waits for nobody.

Why kill -9 is safe at any moment:
- a seal records, then renames. Killed between: a record without a file, never served, because opening
  finds no file; the content is in partial/ and is unlinked at the next start.
- a drop unlinks, then deletes the record. Killed between: again a record without a file.
So a file in sealed/ always has a record, and what is in sealed/ was whole and checked before it came
there. Recovery deletes records without files. (Only a power cut can lose a commit and leave a file
without a record; recovery unlinks it.)

Why one thread and one order: a shard that is dropped and soon filled again must not have its new file
unlinked by the old job. Its drop was queued before its seal, so the unlink comes before the rename.
"""

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from cache_server.store import layout
from cache_server.store.quarantine import Quarantine
from cache_server.store.records import Records
from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums, agrees, holds, new_buffer
from hotshard.core.checksum import Checksum
from hotshard.openfile import OpenFile

BATCH_MAX = 256  # bounds how long the first of a batch waits for the last
LINGER_S = 0.002
LINGER_JOBS = 32


def _nothing() -> None:
    pass


@dataclass(slots=True, kw_only=True)
class Job:
    """One change of a disk; this one changes nothing."""

    delivered: Callable[[], None] = _nothing
    """Called on the event loop when the job is done or has failed."""
    error: OSError | None = None
    """Why it failed."""

    def deliver(self) -> None:
        """Call `delivered`, and let go of it: it refers to this job, and to the files of a seal."""
        delivered, self.delivered = self.delivered, _nothing
        delivered()

    def prepare(self, buffer: memoryview) -> None:
        """Before the transaction."""

    def record(self, records: Records) -> None:
        """Inside the transaction."""

    def finish(self) -> None:
        """After the commit."""


@dataclass(slots=True, kw_only=True)
class Seal(Job):
    """Move a filled file from partial/ to sealed/ if its content is right, else to quarantine/."""

    directory: str
    generation: int
    key: ShardKey
    partial_path: str
    fd: int
    sums: Sums
    whole: Checksum | None
    quarantine: Quarantine
    right: bool | None = None
    """What the check said; None: not checked yet. Large shards are checked before, in a pool thread."""
    row: int = 0

    def prepare(self, buffer: memoryview) -> None:
        """Check, unless that is done."""
        if self.right is None:
            self.check(buffer)

    def check(self, buffer: memoryview) -> None:
        """Read the content again: what the pages hold is what readers will get."""
        right = holds(self.fd, self.key.size, self.sums, buffer)
        if right and self.whole is not None:
            right = agrees(self.sums, self.key.size, self.whole)
        self.right = right

    def check_early(self) -> None:
        """Check in the pool. An error is left for the disk's thread, which meets it again."""
        with contextlib.suppress(OSError):
            self.check(new_buffer())

    def record(self, records: Records) -> None:
        """Insert the row."""
        if self.right:
            self.row = records.insert(self.key, self.sums, self.generation)

    def finish(self) -> None:
        """Rename."""
        if self.right:
            os.rename(self.partial_path, layout.sealed_path(self.directory, self.key.digest))
        else:
            self.quarantine.take(self.partial_path, self.key.digest.hex())


@dataclass(slots=True, kw_only=True)
class Drop(Job):
    """Take sealed files off the disk."""

    directory: str
    digests: list[bytes]
    rows: list[int]
    files: list[OpenFile]
    """Open descriptors, let go after the unlink: the last close of an unlinked file frees its blocks,
    which takes milliseconds for a large one and is no work for the event loop."""
    quarantine: Quarantine | None = None
    """Where to keep them; None: unlink."""

    def prepare(self, buffer: memoryview) -> None:
        """Unlink."""
        del buffer
        for digest in self.digests:
            path = layout.sealed_path(self.directory, digest)
            if self.quarantine is not None:
                self.quarantine.take(path, digest.hex())
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        self.files.clear()

    def record(self, records: Records) -> None:
        """Delete the rows."""
        records.delete(self.rows)


@dataclass(slots=True, kw_only=True)
class Discard(Job):
    """Unlink a partial file."""

    path: str
    files: list[OpenFile]

    def prepare(self, buffer: memoryview) -> None:
        """Unlink."""
        del buffer
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        self.files.clear()


@dataclass(slots=True, kw_only=True)
class Note(Job):
    """Write something down."""

    write: Callable[[Records], None]

    def record(self, records: Records) -> None:
        """Write."""
        self.write(records)


class Sealer:
    """The thread and its queue."""

    def __init__(self, records: Records, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._records = records
        self._loop = loop
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._idle = False
        self._lingers = False
        self._thread = threading.Thread(target=self._run, name=f"sealer {name}", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job. The number of jobs is bounded by the partials and opens that exist."""
        assert not self._stopping
        self._jobs.append(job)
        if self._idle or len(self._jobs) == LINGER_JOBS:
            with self._wake:
                self._wake.notify()

    def close(self) -> None:
        """Finish what is queued and end; blocking."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        buffer = new_buffer()
        while batch := self._next_batch():
            self._work(batch, buffer)
            self._loop.call_soon_threadsafe(_deliver, batch)
            del batch  # or its files would stay open until the next one

    def _next_batch(self) -> list[Job]:
        with self._wake:
            self._idle = True  # before the look: submit() appends and looks in the opposite order
            while not self._jobs and not self._stopping:
                self._wake.wait()
            self._idle = False
            if self._lingers and not self._stopping and len(self._jobs) < LINGER_JOBS:
                self._wake.wait(LINGER_S)
        batch = [self._jobs.popleft() for _ in range(min(BATCH_MAX, len(self._jobs)))]
        self._lingers = len(batch) > 1
        return batch

    def _work(self, batch: list[Job], buffer: memoryview) -> None:
        for job in batch:
            _kept(job, job.prepare, buffer)
        good = [job for job in batch if job.error is None]
        try:
            self._record(good)
        except OSError:
            self._record_singly(good)
        for job in good:
            if job.error is None:
                _kept(job, job.finish)

    def _record(self, jobs: list[Job]) -> None:
        with self._records.transaction() as records:
            for job in jobs:
                job.record(records)

    def _record_singly(self, jobs: list[Job]) -> None:
        """A batch failed: let those through that can be (when space is short, a deletion still may)."""
        for job in jobs:
            _kept(job, self._record, [job])


def _kept(job: Job, step: Callable[..., None], *arguments: object) -> None:
    """Do a step of a job; its error is kept with it."""
    try:
        step(*arguments)
    except OSError as error:
        job.error = error


def _deliver(batch: list[Job]) -> None:
    for job in batch:
        job.deliver()
