"""The cluster at one moment, as one node sees it: members, the table of owners, and the owners before."""

from dataclasses import dataclass, field, replace

import xxhash

from hotshard.core.members import Member, State
from hotshard.core.slots import Table

PAST_S = 3600.0
"""For how long those are asked who were owners before a change."""
PAST_MAX = 32
"""Changes remembered: a rolling restart makes two for each member."""
PREVIOUS_MAX = 3
"""How many previous owners of one shard are asked."""
_VERSION_BITS = 63


@dataclass(frozen=True, slots=True)
class Past:
    """Who the owners were, until some time ago."""

    table: Table
    away: frozenset[str]
    """Members in the table that were no owners then."""
    ended: float

    def owner(self, digest: bytes) -> str | None:
        """The first owner then."""
        return next((id_ for id_ in self.table.owners(digest) if id_ not in self.away), None)


@dataclass(frozen=True, slots=True)
class View:
    """The cluster at one moment. Replaced (`succeeded`), never changed."""

    cluster: str
    me: str
    members: tuple[Member, ...]
    """All of them, of all zones, by id."""
    table: Table
    """Of our zone."""
    past: tuple[Past, ...] = ()
    """The newest first."""
    version: int = field(init=False)
    """Equal versions mean equal tables; it says nothing about which is newer."""
    _by_id: dict[str, Member] = field(init=False, repr=False, compare=False)
    _ready: tuple[Member, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Prepare for many look-ups."""
        by_id = {member.id: member for member in self.members}
        zone = by_id[self.me].zone
        ready = tuple(m for m in self.members if m.state is State.READY and m.zone == zone)
        object.__setattr__(self, "_by_id", by_id)
        object.__setattr__(self, "_ready", ready)
        object.__setattr__(self, "version", _version(self.cluster, self.table))

    def succeeded(self, members: tuple[Member, ...], table: Table, now: float) -> "View":
        """The view after this one."""
        new = View(self.cluster, self.me, members, table)
        past = [each for each in self.past if now - each.ended < PAST_S]
        if self.table.width and (new.version, new.away) != (self.version, self.away):
            past = [Past(self.table, self.away, now), *past][:PAST_MAX]
        return replace(new, past=tuple(past))

    @property
    def zone(self) -> str:
        """Ours."""
        return self._by_id[self.me].zone

    @property
    def away(self) -> frozenset[str]:
        """Who has slots and is no owner now."""
        ready = {member.id for member in self._ready}
        return frozenset(id_ for id_ in self.table.ids if id_ not in ready)

    def member(self, id_: str) -> Member | None:
        """Somebody, if he is in it."""
        return self._by_id.get(id_)

    def owners(self, digest: bytes) -> list[Member]:
        """The owners of a shard that can be asked, best first.

        While all owners of its slot are away, somebody else stands in, the same one for all who see the
        same members: one flight to the origin, not one from every node.
        """
        slot = self.table.slot(digest)
        by_id = self._by_id
        found = [
            member
            for id_ in self.table.owners_of_slot(slot)
            if (member := by_id.get(id_)) is not None and member.state is State.READY
        ]
        if not found and self._ready:
            return [self._ready[slot % len(self._ready)]]
        return found

    def previous_owners(self, digest: bytes) -> list[Member]:
        """Who may have a shard from before, and still answers; the first owner of now is not among them."""
        ids = dict.fromkeys(self.table.owners(digest)[:1])  # it may be draining
        ids.update(dict.fromkeys(each.owner(digest) or "" for each in self.past))
        for owner in self.owners(digest)[:1]:
            ids.pop(owner.id, None)
        found = [member for id_ in ids if (member := self._by_id.get(id_)) is not None]
        return [m for m in found if m.state in (State.READY, State.DRAINING)][:PREVIOUS_MAX]


def _version(cluster: str, table: Table) -> int:
    text = "\0".join((cluster, str(table.slots), str(table.width), *table.ids))
    digest = xxhash.xxh3_64(text.encode())
    digest.update(table.packed())
    return digest.intdigest() >> (64 - _VERSION_BITS)
