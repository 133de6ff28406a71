"""Which shards were asked for before, of those a dataset has no room for; and whether that is news.

Two Bloom filters, a young and an old one. The young one becomes the old one when, on average, everything
in it was asked for twice: a *pass* over what is not resident, about two epochs. Both together remember
the last one or two passes. What they take for known by mistake (one in seven, when they are full) is let
in too early, and that is all.

The filters grow with the entries they are for: CAPACITY shards for each resident one. A dataset beyond
that makes the young filter overflow; then it is dropped without a verdict on the pass.
"""

CAPACITY = 16
FEW = 32  # shards; a pass over fewer says nothing unless there was no hit at all, and so does the first
# one, which may begin while the dataset is still being taken in
_BITS_EACH = 4
_ENTRIES_MIN = 64


class Doorkeeper:
    """See the module."""

    __slots__ = ("_again", "_first", "_mask", "_old", "_young", "pass_hits")

    def __init__(self, entries: int) -> None:
        self.pass_hits = 0
        """Hits of the dataset's resident shards in this pass; the owner counts them."""
        self._old = bytearray()
        self._begin(entries)

    @property
    def size_bytes(self) -> int:
        """Memory."""
        return len(self._young) + len(self._old)

    def asked(self, digest: bytes, entries: int) -> tuple[bool, int | None]:
        """A shard was asked for, while there are so many resident ones.

        Returns:
            Whether it was asked for before, and at the end of a pass its hits.
        """
        new = self._set(digest)
        known = not new or _in(self._old, digest)
        if new:
            self._first += 1
        else:
            self._again += 1
        if self._again <= self._first <= _capacity(self._mask):
            return known, None
        hits = self.pass_hits if self._again > self._first else None
        if hits and (self._first < FEW or not self._old):
            hits = None
        self._old = self._young
        self._begin(entries)
        return known, hits

    def _begin(self, entries: int) -> None:
        bits = _ENTRIES_MIN * CAPACITY * _BITS_EACH
        while bits < entries * CAPACITY * _BITS_EACH:
            bits *= 2
        self._young = bytearray(bits // 8)
        self._mask = bits - 1
        self._first = self._again = self.pass_hits = 0

    def _set(self, digest: bytes) -> bool:
        """Put a digest in; whether it was not there."""
        new = False
        for bit in _bits(digest, self._mask):
            flag = 1 << (bit & 7)
            if not self._young[bit >> 3] & flag:
                self._young[bit >> 3] |= flag
                new = True
        return new


def _in(bits: bytearray, digest: bytes) -> bool:
    if not bits:
        return False
    return all(bits[at >> 3] & 1 << (at & 7) for at in _bits(digest, len(bits) * 8 - 1))


def _bits(digest: bytes, mask: int) -> tuple[int, int]:
    """Two places from the end of the digest; its beginning says which node and disk it is on."""
    return int.from_bytes(digest[8:12], "little") & mask, int.from_bytes(
        digest[12:16], "little"
    ) & mask


def _capacity(mask: int) -> int:
    return (mask + 1) // _BITS_EACH
