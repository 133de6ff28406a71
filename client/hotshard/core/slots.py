"""The finished table of owners: what a look-up needs, and all that travels.

How it comes about: hotshard.core.placement.
"""

from array import array
from dataclasses import dataclass, field
from sys import byteorder

SLOTS_MIN = 1 << 10
SLOTS_MAX = 1 << 18
SLOTS_DEFAULT = 1 << 16
REPLICAS_MAX = 8
WEIGHT_MAX = 1000
WEIGHT_DEFAULT = 100
MEMBERS_MAX = 1 << 15
"""Owners are kept in two bytes."""


def check_slots(slots: int) -> None:
    """Refuse a number of slots that no table has.

    Raises:
        ValueError: it is not a power of two, or out of range.
    """
    if not SLOTS_MIN <= slots <= SLOTS_MAX or slots & (slots - 1):
        raise ValueError(f"{slots} slots; should be a power of two from {SLOTS_MIN} to {SLOTS_MAX}")


@dataclass(frozen=True, slots=True)
class Table:
    """Who owns what; immutable. The same members give equal tables."""

    slots: int
    ids: tuple[str, ...]
    """Every member that owns slots, sorted."""
    width: int
    """Owners per slot: `replicas`, or as many as there are members."""
    rows: "array[int]"
    """`width` positions in `ids` per slot, first owner first."""
    shift: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the form, which may have come over the network."""
        check_slots(self.slots)
        if len(self.rows) != self.slots * self.width or not self.width <= len(self.ids):
            raise ValueError(f"{len(self.rows)} owners for {self.slots} slots of {self.width}")
        if self.width and max(self.rows) >= len(self.ids):
            raise ValueError("an owner that is no member")
        object.__setattr__(self, "shift", 32 - (self.slots.bit_length() - 1))

    def slot(self, digest: bytes) -> int:
        """The slot of a digest (16 bytes, xxh3-128: as random as anything)."""
        return int.from_bytes(digest[:4], "big") >> self.shift

    def owner(self, digest: bytes) -> str | None:
        """The first owner; None: there are no members."""
        slot = int.from_bytes(digest[:4], "big") >> self.shift
        return self.ids[self.rows[slot * self.width]] if self.width else None

    def owners(self, digest: bytes) -> tuple[str, ...]:
        """All owners of a digest, in order."""
        return self.owners_of_slot(int.from_bytes(digest[:4], "big") >> self.shift)

    def owners_of_slot(self, slot: int) -> tuple[str, ...]:
        """All owners of a slot, in order."""
        start = slot * self.width
        ids = self.ids
        return tuple([ids[i] for i in self.rows[start : start + self.width]])

    def loads(self) -> dict[str, int]:
        """How many slots each member owns in the first rank."""
        loads = [0] * len(self.ids)
        for member in self.rows[:: self.width or 1]:
            loads[member] += 1
        return dict(zip(self.ids, loads, strict=True))

    def moved(self, other: "Table") -> int:
        """How many slots have another first owner there."""
        if not self.width or not other.width:
            return self.slots if self.width != other.width else 0
        firsts = zip(self.rows[:: self.width], other.rows[:: other.width], strict=True)
        return sum(self.ids[mine] != other.ids[theirs] for mine, theirs in firsts)

    def packed(self) -> bytes:
        """The rows as they travel: two bytes each, little-endian."""
        return little_endian(self.rows).tobytes()

    @classmethod
    def unpacked(cls, slots: int, ids: tuple[str, ...], width: int, data: bytes) -> "Table":
        """The reverse of `packed`.

        Raises:
            ValueError: it is no table.
        """
        rows = array("H")
        rows.frombytes(data)
        return cls(slots, ids, width, little_endian(rows))


def little_endian(values: "array[int]") -> "array[int]":
    """Values that are in the order of this machine, or of the wire, in the other one."""
    if byteorder == "big":
        values = values[:]
        values.byteswap()
    return values
