"""One opened cache directory: its accounts, its policy, its blank files and its thread.

Event loop only, except where a method says blocking. When the disk fails the Volume is dropped as a whole
and a new one is opened later; whatever still refers to the old one then changes nothing that counts.

Accounts are in whole pages (`footprint`), so that a million tiny files cannot hide. Bytes of a shard that
is being dropped count as used until its file is unlinked, bytes of a partial from its reservation on.
"""

import asyncio
import errno
import os
from collections import deque
from dataclasses import dataclass

from cache_server.core.eviction import Shard
from cache_server.store.index import Entry
from cache_server.store.options import CacheDir, Space, StoreOptions
from cache_server.store.quarantine import Quarantine
from cache_server.store.recovery import Recovered
from cache_server.store.sealer import Discard, Job, Sealer
from cache_server.store.shard import ShardKey
from hotshard.openfile import OpenFile

PAGE = 4096
BLANKS = 64  # blank partial files made at a time: two open files each
EVICT_BYTES_MAX = 64 << 20  # evicted in one go, so that small shards do not wait one by one
_QUARANTINE_BYTES_MAX = 1 << 30


def footprint(size: int) -> int:
    """Bytes of disk that a file of `size` bytes is counted with."""
    return max(PAGE, -(-size // PAGE) * PAGE)


@dataclass(slots=True, frozen=True)
class Blank:
    """An empty file in partial/, open twice."""

    path: str
    file: OpenFile
    reader: OpenFile


@dataclass(slots=True, eq=False)
class Partial:
    """A shard being filled. The holder writes through `file`, then seals or discards it once."""

    key: ShardKey
    file: OpenFile
    """Read-write; never leaves the server."""
    reader: OpenFile
    """The same file, opened read-only: what other processes may be given."""
    path: str
    volume: "Volume"
    released: bool = False
    """Sealed, discarded, or on the way to it."""


class Volume:
    """See the module."""

    def __init__(
        self,
        directory: CacheDir,
        disk_id: str,
        lock_fd: OpenFile,
        recovered: Recovered,
        options: StoreOptions,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Blocking: looks at the file system.

        Raises:
            OSError: the directory cannot be used.
        """
        self.path = directory.path
        self.disk_id = disk_id
        self.records = recovered.records
        self.generation = recovered.generation
        self.policy = options.new_policy()
        self.now = loop.time
        self.sealed_bytes = 0
        self.partial_bytes = 0
        self.evictable_bytes = 0
        self.shards = 0
        self.free_bytes = 0
        self.capacity_bytes = 0
        self.limit_bytes = 0
        self.looked_at = float("-inf")
        self.evicting = asyncio.Lock()
        self.blanking: asyncio.Future[list[Blank]] | None = None
        """Blank files being made."""
        self.scrub_row = int(self.records.fact("scrub_row") or 0)
        self._capacity: Space = directory.capacity
        self._floor = options.free_space_floor
        self._lock_fd: OpenFile | None = lock_fd
        self._blanks: deque[Blank] = deque()
        self._blank_number = 0
        free_bytes, total_bytes = self.look()
        quarantine_bytes_max = min(_QUARANTINE_BYTES_MAX, self._capacity.of(total_bytes) // 16)
        self.quarantine = Quarantine(os.path.join(self.path, "quarantine"), quarantine_bytes_max)
        self.looked(free_bytes, total_bytes)
        self.dead = False
        """Set when the disk has failed; for ever."""
        self._sealer = Sealer(self.records, loop, self.path)

    # Accounts.

    @property
    def used_bytes(self) -> int:
        """All files of this directory."""
        return self.sealed_bytes + self.partial_bytes + self.quarantine.bytes

    def fits(self, need_bytes: int) -> bool:
        """Whether there is room without evicting."""
        return self.used_bytes + need_bytes <= self.limit_bytes

    def can_fit(self, need_bytes: int) -> bool:
        """Whether there would be room if all that may go went."""
        return self.used_bytes - self.evictable_bytes + need_bytes <= self.limit_bytes

    def excess_bytes(self, need_bytes: int) -> int:
        """How much to evict, at least, to get that room."""
        return max(0, self.used_bytes + need_bytes - self.limit_bytes)

    @property
    def batch_bytes(self) -> int:
        """How much to evict at a time, where it costs nothing."""
        return min(EVICT_BYTES_MAX, self.capacity_bytes // 64)

    def look(self) -> tuple[int, int]:
        """Free and total bytes of the file system; blocking."""
        stats = os.statvfs(self.path)
        return stats.f_bavail * stats.f_frsize, stats.f_blocks * stats.f_frsize

    def looked(self, free_bytes: int, total_bytes: int) -> None:
        """Take in what `look` saw.

        Of partial files nobody knows how much is written yet, so all of it is taken to be still to come.
        """
        self.free_bytes = free_bytes
        self.capacity_bytes = self._capacity.of(total_bytes)
        written_bytes = self.used_bytes - self.partial_bytes
        room_bytes = written_bytes + free_bytes - self._floor.of(total_bytes)
        self.limit_bytes = max(0, min(self.capacity_bytes, room_bytes))

    def is_full(self) -> None:
        """The file system says so, whatever the accounts say; until the next look."""
        self.limit_bytes = min(self.limit_bytes, self.used_bytes)

    # Sealed shards.

    def add(self, digest: bytes, entry: Entry) -> None:
        """A shard is in sealed/."""
        self.shards += 1
        self.sealed_bytes += footprint(entry.size)
        if not entry.pinned:
            self.may_evict(digest, entry)

    def may_evict(self, digest: bytes, entry: Entry) -> None:
        """It is not, or no longer, pinned."""
        shard = Shard(digest, footprint(entry.size), entry.dataset)
        self.evictable_bytes += shard.size
        self.policy.add(shard, self.now())

    def may_not_evict(self, digest: bytes, entry: Entry) -> None:
        """It is pinned."""
        self.evictable_bytes -= footprint(entry.size)
        self.policy.remove(digest, entry.dataset)

    def leaving(self, digest: bytes, entry: Entry) -> None:
        """A shard is about to be unlinked; its bytes count until then."""
        self.shards -= 1
        if not entry.pinned:
            self.may_not_evict(digest, entry)

    # Partial files.

    @property
    def blanks(self) -> int:
        """Blank files at hand."""
        return len(self._blanks)

    def take_blank(self) -> Blank | None:
        """A blank file, if there is one."""
        return self._blanks.popleft() if self._blanks else None

    def made_blanks(self, done: asyncio.Future[list[Blank]]) -> None:
        """Add what `make_blanks` made; an error is for whoever waits for it."""
        self.blanking = None
        if done.exception() is None:
            self._blanks.extend(done.result())

    def make_blanks(self) -> list[Blank]:
        """Create and open blank files, as many as can be; blocking; one caller at a time.

        Their mode lets nobody write: who is passed a descriptor cannot open it again for writing.

        Raises:
            OSError: not even one.
        """
        blanks: list[Blank] = []
        try:
            for _ in range(BLANKS):
                self._blank_number += 1
                blanks.append(_make_blank(f"{self.path}/partial/{self._blank_number}"))
        except OSError:
            if not blanks:
                raise
        return blanks

    def discard(self, partial: Partial) -> None:
        """Unlink a partial file; its bytes count until then."""
        partial.released = True
        job = Discard(path=partial.path, files=[partial.file, partial.reader])
        reserved_bytes = footprint(partial.key.size)

        def delivered() -> None:
            self.partial_bytes -= reserved_bytes

        job.delivered = delivered
        self.submit(job)

    # Work for the thread.

    def submit(self, job: Job) -> None:
        """Queue a job; on a disk that has failed it fails at once."""
        if self.dead:
            job.error = OSError(errno.EIO, f"{self.path}: the disk has failed")
            job.deliver()
        else:
            self._sealer.submit(job)

    def close(self, *, boot_id: str) -> None:
        """Finish the thread's work and let the directory go; blocking.

        Args:
            boot_id: marks a clean stop; empty: an unclean one.
        """
        self._sealer.close()
        self._blanks.clear()
        try:
            if boot_id:
                with self.records.transaction():
                    self.records.set_fact("scrub_row", str(self.scrub_row))
                    self.records.set_fact("stopped", boot_id)
            self.records.close()
        finally:
            self._lock_fd = None


def _make_blank(path: str) -> Blank:
    file = OpenFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o444))
    try:
        reader = OpenFile(os.open(path, os.O_RDONLY))
    except OSError:
        os.unlink(path)
        raise
    return Blank(path, file, reader)
