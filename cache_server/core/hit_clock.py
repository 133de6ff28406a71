"""Which shards of one dataset are no longer used: a clock whose hand is moved by hits.

A ring of entries with two-bit use counters, as in CLOCK and in the main queue of S3-FIFO. There the hand
moves when room is needed, so a dataset that is read once per epoch and does not fit pushes itself out.
Here a hit moves it: it goes round once in ROUND_HITS hits for each entry. An entry it finds with its
counter at zero was not used for a whole round: it is *stale*, and may go.

Why it suits epochs. When every shard is read once per epoch, in any order, at most 2 (n - 1) of the n
entries' hits lie between two uses of one entry: late in an epoch, early in the next but one. A round is
ROUND_HITS * n hits, so with ROUND_HITS above 2 every entry is used between two visits of the hand, and
none of them ever becomes stale. The resident part of the dataset stays as it is, and its hit ratio is the
cached fraction, which no policy exceeds for a single reader (docs/adr/0006-eviction.md). In any other
pattern the entries used less than a third as often as the average become stale, soon if there are many
hits.

Memory per entry: one dict slot, one int, 16 bytes of ring; the digest is shared with the store's index.
Dicts of bytes and ints and rings of plain bytes are nothing to the garbage collector.
"""

from collections.abc import Iterator

from hotshard.core.blocks import DIGEST_BYTES

ROUND_HITS = 3
USES_MAX = 3  # two bits
FIRST_USES = 1  # a new entry has until the second visit of the hand
_USES = 3
_STALE = 4
_SIZE_SHIFT = 3
_SLACK = 64


class Ring:
    """Digests, first in, first out."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        return len(self._bytes) // DIGEST_BYTES

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._bytes), DIGEST_BYTES):
            yield bytes(self._bytes[at : at + DIGEST_BYTES])

    def append(self, digest: bytes) -> None:
        """Put one at the end."""
        self._bytes += digest

    def popleft(self) -> bytes:
        """Take the first one; there must be one."""
        digest = bytes(self._bytes[:DIGEST_BYTES])
        del self._bytes[:DIGEST_BYTES]  # a bytearray moves its start, not its content
        return digest

    def keep(self, digests: Iterator[bytes]) -> None:
        """Replace the content."""
        self._bytes = bytearray(b"".join(digests))


class HitClock:
    """See the module. Every operation is O(1), amortised.

    An entry's int is `size << 3 | stale << 2 | uses`. Removal only takes the entry out of the dict; its
    place in a ring is dead and skipped later. Dead places are swept when they outnumber the live ones.
    """

    __slots__ = ("_entries", "_hits", "_ring", "_stale", "bytes", "stale_bytes")

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}
        self._ring = Ring()
        self._stale = Ring()
        self._hits = 0
        self.bytes = 0
        """Of all entries."""
        self.stale_bytes = 0
        """Of those that may go."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._entries

    def add(self, digest: bytes, size: int) -> None:
        """Put in an entry, or replace it."""
        assert len(digest) == DIGEST_BYTES
        assert size > 0
        self.remove(digest)
        self._entries[digest] = size << _SIZE_SHIFT | FIRST_USES
        self._ring.append(digest)
        self.bytes += size
        if len(self._ring) + len(self._stale) > 2 * len(self._entries) + _SLACK:
            self._sweep()

    def remove(self, digest: bytes) -> int:
        """Take an entry out; its size, 0 if there is none."""
        entry = self._entries.pop(digest, None)
        if entry is None:
            return 0
        size = entry >> _SIZE_SHIFT
        self.bytes -= size
        if entry & _STALE:
            self.stale_bytes -= size
        return size

    def hit(self, digest: bytes) -> bytes | None:
        """An entry was used, which must be there; the one that the hand has visited for it, if any."""
        entry = self._entries[digest]
        if entry & _STALE:
            self.stale_bytes -= entry >> _SIZE_SHIFT
            self._entries[digest] = (entry ^ _STALE) + 1
            self._ring.append(digest)
        elif entry & _USES < USES_MAX:
            self._entries[digest] = entry + 1
        self._hits += 1
        if self._hits < ROUND_HITS:
            return None
        self._hits = 0
        return self._visit(1)

    def age(self) -> bytes | None:
        """Move the hand by one without a hit, and take all uses away that it finds."""
        return self._visit(USES_MAX)

    def take_stale(self, need_bytes: int) -> list[bytes]:
        """Take stale entries out: `need_bytes` of them, or all."""
        taken: list[bytes] = []
        while need_bytes > 0 and self.stale_bytes:
            digest = self._stale.popleft()
            if self._entries.get(digest, 0) & _STALE:
                need_bytes -= self.remove(digest)
                taken.append(digest)
        return taken

    def take(self, need_bytes: int) -> list[bytes]:
        """Take entries out, stale ones first, then the least used: `need_bytes` of them, or all."""
        enough_bytes = self.bytes - need_bytes
        taken: list[bytes] = []
        while self._entries and self.bytes > enough_bytes:
            while not self.stale_bytes:
                self._visit(1)
            taken += self.take_stale(1)
        return taken

    def _visit(self, uses: int) -> bytes | None:
        """The hand looks at the next entry and takes so many uses from it."""
        while self._ring:
            digest = self._ring.popleft()
            entry = self._entries.get(digest, _STALE)
            if entry & _STALE:
                continue  # a dead place
            if entry & _USES:
                self._entries[digest] = entry - min(uses, entry & _USES)
                self._ring.append(digest)
            else:
                self._entries[digest] = entry | _STALE
                self.stale_bytes += entry >> _SIZE_SHIFT
                self._stale.append(digest)
            return digest
        return None

    def _sweep(self) -> None:
        """Keep one place for each live entry."""
        entries = self._entries
        self._ring.keep(d for d in dict.fromkeys(self._ring) if not entries.get(d, _STALE) & _STALE)
        self._stale.keep(d for d in dict.fromkeys(self._stale) if entries.get(d, 0) & _STALE)
