"""Eviction policies to compare ours with, behind the same interface: they admit everything.

S3-FIFO: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO Queues are All You Need for Cache
Eviction", SOSP 2023. New entries go through a small queue (10% of the bytes); those used at least twice
there move on to the main queue, the others leave and are remembered for a while by digest only (ghosts);
what comes back as a ghost goes straight to main.
"""

from collections import OrderedDict

from cache_server.core.eviction import DatasetUse, Shard, Victims

SMALL_FRACTION = 0.1  # of all bytes; the paper finds 5-20% equally good
FREQUENCY_MAX = 3  # two bits
PROMOTE_AT = 2  # uses in the small queue that earn a place in the main one
GHOSTS_MIN = 64


class Lru:
    """Least recently used first."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, shard: Shard, now_s: float) -> None:
        """See EvictionPolicy."""
        del now_s
        self._sizes[shard.digest] = shard.size
        self._sizes.move_to_end(shard.digest)

    def touch(self, digest: bytes, dataset: int, now_s: float) -> None:
        """See EvictionPolicy."""
        del dataset, now_s
        if digest in self._sizes:
            self._sizes.move_to_end(digest)

    def remove(self, digest: bytes, dataset: int) -> None:
        """See EvictionPolicy."""
        del dataset
        self._sizes.pop(digest, None)

    def offer(self, shard: Shard, need_bytes: int, now_s: float) -> bool:
        """Always."""
        del shard, need_bytes, now_s
        return True

    def declare(self, dataset: int, now_s: float) -> None:
        """Nothing to it."""

    def make_way(
        self, shard: Shard, need_bytes: int, batch_bytes: int, now_s: float
    ) -> list[Victims]:
        """See EvictionPolicy."""
        del shard
        return self.victims(max(need_bytes, batch_bytes), now_s)

    def victims(self, need_bytes: int, now_s: float) -> list[Victims]:
        """See EvictionPolicy."""
        del now_s
        chosen: list[bytes] = []
        while need_bytes > 0 and self._sizes:
            digest, size = self._sizes.popitem(last=False)
            need_bytes -= size
            chosen.append(digest)
        return [Victims("space", chosen)] if chosen else []

    def uses(self, now_s: float) -> list[DatasetUse]:
        """It knows no datasets."""
        del now_s
        return []


class S3Fifo:
    """S3-FIFO over bytes; the time an operation takes is bounded on average only."""

    def __init__(self) -> None:
        self._sizes: dict[bytes, int] = {}
        self._uses: dict[bytes, int] = {}
        self._small: OrderedDict[bytes, None] = OrderedDict()
        self._main: OrderedDict[bytes, None] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()
        self._small_bytes = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, shard: Shard, now_s: float) -> None:
        """See EvictionPolicy."""
        del now_s
        digest = shard.digest
        self.remove(digest, shard.dataset)
        self._sizes[digest] = shard.size
        self._uses[digest] = 0
        self._bytes += shard.size
        if digest in self._ghosts:
            del self._ghosts[digest]
            self._main[digest] = None
        else:
            self._small[digest] = None
            self._small_bytes += shard.size

    def touch(self, digest: bytes, dataset: int, now_s: float) -> None:
        """See EvictionPolicy."""
        del dataset, now_s
        if digest in self._uses:
            self._uses[digest] = min(FREQUENCY_MAX, self._uses[digest] + 1)

    def remove(self, digest: bytes, dataset: int) -> None:
        """See EvictionPolicy."""
        del dataset
        size = self._sizes.pop(digest, None)
        if size is None:
            return
        del self._uses[digest]
        self._bytes -= size
        if digest in self._small:
            del self._small[digest]
            self._small_bytes -= size
        else:
            del self._main[digest]

    def offer(self, shard: Shard, need_bytes: int, now_s: float) -> bool:
        """Always."""
        del shard, need_bytes, now_s
        return True

    def declare(self, dataset: int, now_s: float) -> None:
        """Nothing to it."""

    def make_way(
        self, shard: Shard, need_bytes: int, batch_bytes: int, now_s: float
    ) -> list[Victims]:
        """See EvictionPolicy."""
        del shard
        return self.victims(max(need_bytes, batch_bytes), now_s)

    def victims(self, need_bytes: int, now_s: float) -> list[Victims]:
        """See EvictionPolicy."""
        del now_s
        chosen: list[bytes] = []
        while need_bytes > 0 and self._sizes:
            small_first = self._small_bytes >= SMALL_FRACTION * self._bytes
            victim = self._from_small() if small_first else self._from_main()
            if victim is not None:
                need_bytes -= self._sizes[victim]
                self.remove(victim, 0)
                chosen.append(victim)
        return [Victims("space", chosen)] if chosen else []

    def uses(self, now_s: float) -> list[DatasetUse]:
        """It knows no datasets."""
        del now_s
        return []

    def _from_small(self) -> bytes | None:
        """One step of the small queue; None: its first entry moves on."""
        digest = next(iter(self._small))
        if self._uses[digest] >= PROMOTE_AT:
            del self._small[digest]
            self._small_bytes -= self._sizes[digest]
            self._uses[digest] = 0
            self._main[digest] = None
            return None
        self._ghosts[digest] = None
        while len(self._ghosts) > max(GHOSTS_MIN, len(self._sizes)):
            self._ghosts.popitem(last=False)
        return digest

    def _from_main(self) -> bytes | None:
        """One step of the main queue; an entry goes round once for every use since its last turn."""
        digest = next(iter(self._main))
        if self._uses[digest]:
            self._uses[digest] -= 1
            self._main.move_to_end(digest)
            return None
        return digest
