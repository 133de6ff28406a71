"""What the store asks of an eviction policy, and what it tells it. Data and a Protocol.

A policy knows digests, byte counts and numbers of datasets, nothing of files. It holds what may be
evicted and only that: the store takes a pinned shard out (`remove`) and adds it again when it is unpinned,
so choosing victims never has to step over what it may not take. Each disk has a policy of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

REASONS = ("idle", "replica", "stale", "share", "space")
"""Why a shard is evicted: its dataset is idle; it is a replica, and the newcomer is owned; it was not used
for long while others were; its dataset has more than its share; the file system is short of space."""


class Shard(NamedTuple):
    """A shard that the policy holds, or that asks to be taken in."""

    digest: bytes
    size: int
    """Bytes of disk."""
    dataset: int


class Victims(NamedTuple):
    """Shards to drop, for one of REASONS."""

    reason: str
    digests: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """How one dataset stands with the policy of one disk."""

    dataset: int
    bytes: int
    """Resident and not pinned."""
    replica_bytes: int
    """Of them, of shards that another member owns."""
    active: bool
    """Used not long ago."""
    streaming: bool
    """Active, and not long ago something of it was not taken in."""
    streamed_shards: int
    """Visits to shards that were not taken in."""
    streamed_bytes: int


class EvictionPolicy(Protocol):
    """What the store asks. `now_s` is any clock that does not go back."""

    def add(self, shard: Shard, now_s: float) -> None:
        """A shard was sealed, found at the start, or unpinned."""

    def touch(self, digest: bytes, dataset: int, now_s: float) -> None:
        """It was used. An unknown digest is ignored."""

    def remove(self, digest: bytes, dataset: int) -> None:
        """It is gone or pinned, not by this policy's choice. An unknown digest is ignored."""

    def offer(self, shard: Shard, need_bytes: int, now_s: float) -> bool:
        """A shard was asked for that is not here; whether to keep it.

        Args:
            shard: what was asked for.
            need_bytes: what would have to be evicted for it; 0: there is room.
            now_s: the time.
        """

    def declare(self, dataset: int, now_s: float) -> None:
        """Somebody says that a dataset will be read again and again."""

    def make_way(
        self, shard: Shard, need_bytes: int, batch_bytes: int, now_s: float
    ) -> list[Victims]:
        """Choose shards of `need_bytes` in all to drop for this one, and forget them.

        Args:
            shard: the newcomer.
            need_bytes: the least that helps.
            batch_bytes: so much is welcome, where it costs nothing.
            now_s: the time.

        Returns:
            Nothing at all if `need_bytes` are not to be had.
        """

    def victims(self, need_bytes: int, now_s: float) -> list[Victims]:
        """Choose shards of `need_bytes` in all, or everything there is, whatever it costs; forget them."""

    def __len__(self) -> int:
        """How many shards it holds."""

    def uses(self, now_s: float) -> list[DatasetUse]:
        """Every dataset that it knows."""
