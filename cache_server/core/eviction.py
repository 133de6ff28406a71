"""Which shards to give up when space is needed: S3-FIFO, and LRU as the reference.

A policy knows digests and byte counts, nothing of files. It holds what may be evicted and only that: the
store takes a pinned shard out (`remove`) and adds it again when it is unpinned, so choosing victims never
has to step over what it may not take.

S3-FIFO: J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO Queues are All You Need for Cache
Eviction", SOSP 2023. New entries go through a small queue (10% of the bytes); those used at least twice
there move on to the main queue, the others leave and are remembered for a while by digest only (ghosts);
what comes back as a ghost goes straight to main.

Memory per entry: one dict slot, one int and 16 bytes of queue, plus at most one ghost per entry; the
digest is shared with the store's index. Dicts of bytes and ints and queues of plain bytes are nothing to
the garbage collector, so its passes do not grow with the number of shards.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from hotshard.core.blocks import DIGEST_BYTES

SMALL_FRACTION = 0.1  # of all bytes; the paper finds 5-20% equally good
FREQUENCY_MAX = 3  # two bits
PROMOTE_AT = 2  # uses in the small queue that earn a place in the main one
GHOSTS_MIN = 64


class EvictionPolicy(Protocol):
    """What the store asks of a policy. Digests in it are unique."""

    def add(self, digest: bytes, size: int) -> None:
        """A shard of `size` bytes was sealed, or unpinned."""

    def touch(self, digest: bytes) -> None:
        """It was used. An unknown digest is ignored."""

    def remove(self, digest: bytes) -> None:
        """It is gone or pinned, not by this policy's choice. An unknown digest is ignored."""

    def victims(self, need_bytes: int) -> list[bytes]:
        """Choose shards of at least `need_bytes` in all, or everything there is, and forget them."""

    def __len__(self) -> int:
        """How many shards it knows."""


class _Queue:
    """Digests, first in, first out."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // DIGEST_BYTES

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._bytes), DIGEST_BYTES):
            yield bytes(self._bytes[at : at + DIGEST_BYTES])

    def append(self, digest: bytes) -> None:
        assert len(digest) == DIGEST_BYTES
        self._bytes += digest

    def popleft(self) -> bytes:
        digest = bytes(self._bytes[:DIGEST_BYTES])
        del self._bytes[:DIGEST_BYTES]  # a bytearray moves its start, not its content
        return digest

    def keep(self, digests: Iterator[bytes]) -> None:
        """Replace the content."""
        self._bytes = bytearray(b"".join(digests))


class S3Fifo:
    """S3-FIFO over bytes.

    An entry's int is `size << 3 | main << 2 | frequency`. Removal only takes the entry out of the dict;
    its queue slot is stale and skipped later. Stale slots are swept when they outnumber the live ones, so
    every operation is O(1) amortised and the queues stay bounded.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}
        self._small = _Queue()
        self._main = _Queue()
        self._small_bytes = 0
        self._total_bytes = 0
        self._ghosts: dict[bytes, None] = {}
        self._ghost_order = _Queue()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, digest: bytes, size: int) -> None:
        """See EvictionPolicy."""
        self.remove(digest)
        self._total_bytes += size
        if digest in self._ghosts:
            del self._ghosts[digest]
            self._entries[digest] = size << 3 | 4
            self._main.append(digest)
        else:
            self._entries[digest] = size << 3
            self._small.append(digest)
            self._small_bytes += size
        if len(self._small) + len(self._main) > 2 * len(self._entries) + GHOSTS_MIN:
            self._sweep()

    def touch(self, digest: bytes) -> None:
        """See EvictionPolicy."""
        entry = self._entries.get(digest)
        if entry is not None and entry & 3 < FREQUENCY_MAX:
            self._entries[digest] = entry + 1

    def remove(self, digest: bytes) -> None:
        """See EvictionPolicy."""
        entry = self._entries.pop(digest, None)
        if entry is not None:
            self._total_bytes -= entry >> 3
            if not entry & 4:
                self._small_bytes -= entry >> 3

    def victims(self, need_bytes: int) -> list[bytes]:
        """See EvictionPolicy."""
        chosen: list[bytes] = []
        while need_bytes > 0 and self._entries:
            small_first = self._small_bytes >= SMALL_FRACTION * self._total_bytes
            victim = self._next_small() if small_first else self._next_main()
            if victim is not None:
                need_bytes -= self._entries[victim] >> 3
                self.remove(victim)
                chosen.append(victim)
        return chosen

    def _next_small(self) -> bytes | None:
        """One step of the small queue; None: nothing to evict in this step."""
        digest = self._small.popleft()
        entry = self._entries.get(digest, 4)
        if entry & 4:
            return None  # stale: removed, or by now in main
        if entry & 3 >= PROMOTE_AT:
            self._small_bytes -= entry >> 3
            self._entries[digest] = entry & ~3 | 4
            self._main.append(digest)
            return None
        self._remember(digest)
        return digest

    def _next_main(self) -> bytes | None:
        """One step of the main queue; an entry goes round once for every use since its last turn."""
        digest = self._main.popleft()
        entry = self._entries.get(digest, 0)
        if not entry & 4:
            return None  # stale: removed, or added again to small
        if entry & 3:
            self._entries[digest] = entry - 1
            self._main.append(digest)
            return None
        return digest

    def _remember(self, digest: bytes) -> None:
        self._ghosts[digest] = None
        self._ghost_order.append(digest)
        while len(self._ghost_order) > max(GHOSTS_MIN, len(self._entries)):
            self._ghosts.pop(self._ghost_order.popleft(), None)

    def _sweep(self) -> None:
        """Keep each live entry's first slot in its own queue."""
        entries = self._entries
        self._small.keep(d for d in dict.fromkeys(self._small) if not entries.get(d, 4) & 4)
        self._main.keep(d for d in dict.fromkeys(self._main) if entries.get(d, 0) & 4)


class Lru:
    """Least recently used first: what S3-FIFO is measured against."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, digest: bytes, size: int) -> None:
        """See EvictionPolicy."""
        self._sizes[digest] = size
        self._sizes.move_to_end(digest)

    def touch(self, digest: bytes) -> None:
        """See EvictionPolicy."""
        if digest in self._sizes:
            self._sizes.move_to_end(digest)

    def remove(self, digest: bytes) -> None:
        """See EvictionPolicy."""
        self._sizes.pop(digest, None)

    def victims(self, need_bytes: int) -> list[bytes]:
        """See EvictionPolicy."""
        chosen: list[bytes] = []
        while need_bytes > 0 and self._sizes:
            digest, size = self._sizes.popitem(last=False)
            need_bytes -= size
            chosen.append(digest)
        return chosen
