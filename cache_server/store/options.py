"""What the store is told, and what it tells: options, events, reports. Data only."""

from collections.abc import Callable
from dataclasses import dataclass

from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.core.eviction import EvictionPolicy


class NoSpace(Exception):
    """The store cannot take this shard now: the caller passes the bytes on without keeping them."""


class NotAdmitted(NoSpace):
    """There would be room, but what is there is worth more to keep."""


@dataclass(frozen=True, slots=True)
class Space:
    """An amount of disk: bytes, or a fraction of the file system."""

    size: int = 0
    """Bytes; 0: take the fraction."""
    fraction: float = 0.0

    def of(self, total_bytes: int) -> int:
        """Bytes of a file system with `total_bytes`."""
        return self.size or int(total_bytes * self.fraction)


@dataclass(frozen=True, slots=True)
class CacheDir:
    """One directory of the store, on a disk of its own."""

    path: str
    capacity: Space
    """How much of the disk hotshard may use, all files counted."""


def _no_dataset(_uri: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How the store behaves."""

    free_space_floor: Space = Space(fraction=0.10)
    """What stays free on each file system, whoever uses it."""
    dataset_of: Callable[[str], str] = _no_dataset
    """The dataset (a prefix) that an object's uri belongs to. Pure; also called from threads."""
    new_policy: Callable[[], EvictionPolicy] = DatasetPolicy
    """Makes the eviction policy of one disk."""
    open_files_max: int = 0
    """How many sealed files are kept open; 0: half of RLIMIT_NOFILE, at most 65,536."""
    required: bool = True
    """Whether to refuse to start when no directory can be used. Without one all is passed through."""
    threads: int = 4
    """For opening, checking and scrubbing files; each disk has one more for itself."""


def _ignore(*_args: object) -> None:
    pass


@dataclass(frozen=True, slots=True)
class StoreEvents:
    """Callables the store tells what happened, on the event loop. For metrics."""

    sealed: Callable[[int], None] = _ignore
    """(bytes) of one shard."""
    evicted: Callable[[str, int, int], None] = _ignore
    """(reason, shards, bytes); reason: one of eviction.REASONS, asked, missing (the file was gone),
    duplicate."""
    quarantined: Callable[[str, int], None] = _ignore
    """(where, bytes) of one shard that failed its check; where: seal, open, scrub."""
    disk_state: Callable[[str, str, str], None] = _ignore
    """(path, state, reason) when a disk changes its state."""


@dataclass(frozen=True, slots=True)
class DiskReport:
    """One cache directory."""

    path: str
    disk_id: str
    """Empty while it has never been read."""
    state: str
    """ready; failed (an error; tried again from time to time); refused (not ours to use)."""
    reason: str
    """Why it is not ready."""
    capacity_bytes: int
    limit_bytes: int
    """What may be used at this moment: the capacity, or less when the file system is short of space."""
    used_bytes: int
    """Sealed, partial and quarantined files, in whole pages."""
    partial_bytes: int
    free_bytes: int
    """Of the file system, at the last look."""
    shards: int


@dataclass(frozen=True, slots=True)
class DatasetReport:
    """One dataset: what is sealed of it, and what was not kept."""

    name: str
    shards: int
    bytes: int
    replica_bytes: int = 0
    """Of them, of shards that another member owns, and that are not pinned."""
    active: bool = False
    """Read not long ago: it is not the first to be evicted."""
    streaming: bool = False
    """And not long ago something of it was passed on without being kept."""
    streamed_shards: int = 0
    """Visits to shards that were passed on without being kept, since the start."""
    streamed_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ShardReport:
    """One sealed shard."""

    path: str
    size: int
    dataset: str
    pinned: bool
    verified: bool
    """False: it will be checked before it is first served."""
    open: bool
    """Whether its file is held open."""
