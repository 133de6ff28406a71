"""Who is in the cluster: from what a provider lists and what members answer to their states.

    joining --ready--> ready <--back in time--> draining, lost --grace over--> gone

Pure: the time is an argument. What makes no sense is refused, with the reason; the cluster goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hotshard.core.members import (
    Candidate,
    Member,
    Refusal,
    Refused,
    State,
    Terms,
    check_address,
    check_member,
)
from hotshard.core.slots import MEMBERS_MAX

GRACE_S = 600.0
SILENCES_MAX = 2
"""Meetings in a row that may fail before a member counts as lost."""


@dataclass(slots=True)
class _Entry:
    """What is known of one member."""

    member: Member
    said: State = State.JOINING
    """By the member itself; its state is what the provider agrees with."""
    away_since: float | None = None
    """Since when it is not ready, if it was before."""
    was_ready: bool = False


@dataclass(slots=True)
class _Place:
    """What is known of one address."""

    candidate: Candidate
    listed: bool = True
    id: str = ""
    silences: int = 0


class Roster:
    """Puts together who is there. Call with a clock that does not go back."""

    def __init__(self, me: Member, terms: Terms, *, grace_s: float = GRACE_S) -> None:
        check_member(me)
        self.terms = terms
        self._me = me
        self._grace_s = grace_s
        self._entries = {me.id: _Entry(me, me.state, was_ready=me.state is State.READY)}
        self._places: dict[str, _Place] = {}

    @property
    def me(self) -> Member:
        """This node, as it presents itself."""
        return self._me

    @property
    def addresses(self) -> list[Candidate]:
        """Everybody listed but ourselves."""
        return [
            place.candidate
            for place in self._places.values()
            if place.listed and place.id != self._me.id
        ]

    def members(self) -> tuple[Member, ...]:
        """Everybody, by id."""
        return tuple(self._entries[id_].member for id_ in sorted(self._entries))

    def says(self, id_: str) -> tuple[int, State] | None:
        """What a member said when it was met last: its instance and its state."""
        entry = self._entries.get(id_)
        if entry is None or entry.member.state is State.LOST:
            return None
        return entry.member.instance, entry.said

    def weights(self) -> dict[str, int]:
        """Whose slots there are in our zone, for the table."""
        return {
            id_: entry.member.weight
            for id_, entry in self._entries.items()
            if entry.was_ready and entry.member.zone == self._me.zone
        }

    def become(self, state: State, now: float) -> None:
        """This node has come to another state."""
        self._me = replace(self._me, state=state)
        self._enter(self._me, now)

    def located(self, grpc: str, bulk: str, now: float) -> None:
        """This node knows its own addresses now."""
        self._me = replace(self._me, grpc=grpc, bulk=bulk)
        self._enter(self._me, now)

    def listed(self, candidates: Iterable[Candidate], now: float) -> list[Refused]:
        """The provider's list, whole; what it refuses of it."""
        refused: list[Refused] = []
        named: dict[str, Candidate] = {}
        for candidate in candidates:
            try:
                check_address(candidate.address)
            except Refused as error:
                refused.append(error)
            else:
                named[candidate.address] = candidate
        for address in list(named)[MEMBERS_MAX:]:
            del named[address]
            refused.append(Refused(Refusal.TOO_MANY, f"{address} is listed as one too many"))
        for address, place in list(self._places.items()):
            if address not in named:
                del self._places[address]
                self._lose(place.id, address, now)
        for address, candidate in named.items():
            place = self._places.setdefault(address, _Place(candidate))
            place.candidate = candidate
            entry = self._entries.get(place.id)
            if entry is None or entry.member.grpc != address or place.id == self._me.id:
                continue
            if entry.member.state is not State.LOST:
                self._enter(replace(entry.member, state=entry.said), now, place)
        return refused

    def met(self, address: str, member: Member, terms: Terms, now: float) -> Member:
        """Somebody answered at an address, or called and says that it is his; as what he counts now.

        Raises:
            Refused: he is no member, and why.
        """
        place = self._places.get(address)
        if place is None:
            raise Refused(Refusal.NOT_LISTED, f"{address} is not in the list of members")
        bulk = member.bulk
        if bulk.startswith(":"):
            bulk = address.rpartition(":")[0] + bulk
        zone = place.candidate.zone or member.zone
        member = replace(member, grpc=address, bulk=bulk, zone=zone)
        try:
            self._admit(address, member, terms)
        except Refused:
            if place.id != self._me.id:
                self._lose(place.id, address, now)
            place.id = ""
            raise
        if place.id not in ("", member.id):
            self._lose(place.id, address, now)  # another disk, at the same address
        place.id, place.silences = member.id, 0
        if member.id == self._me.id:
            if not self._me.zone:
                self._me = replace(self._me, zone=member.zone)
                self._enter(self._me, now)
            return self._me
        known = self._entries.get(member.id)
        if known is not None and known.member.grpc != address and self._answers(known.member):
            return known.member  # the same process, by another of its addresses
        return self._enter(member, now, place)

    def silent(self, address: str, now: float) -> None:
        """Nobody answered at an address."""
        place = self._places.get(address)
        if place is None:
            return
        place.silences += 1
        if place.silences >= SILENCES_MAX:
            self._lose(place.id, address, now)

    def expire(self, now: float) -> bool:
        """Let those go whose grace is over; whether anybody went."""
        over = [
            id_
            for id_, entry in self._entries.items()
            if entry.away_since is not None and now - entry.away_since >= self._grace_s
        ]
        for id_ in over:
            entry = self._entries[id_]
            entry.was_ready, entry.away_since = False, None
            if entry.member.state is State.LOST:
                del self._entries[id_]
        return bool(over)

    def expires_at(self) -> float | None:
        """When `expire` will have something to do."""
        since = [e.away_since for e in self._entries.values() if e.away_since is not None]
        return min(since) + self._grace_s if since else None

    # -- inside ------------------------------------------------------------------------------------

    def _admit(self, address: str, member: Member, terms: Terms) -> None:
        check_member(member)
        difference = self.terms.differs(terms)
        if difference:
            raise Refused(Refusal.OTHER_TERMS, f"{address} is not of this cluster: {difference}")
        known = self._entries.get(member.id)
        if known is None:
            if len(self._entries) >= MEMBERS_MAX:
                raise Refused(Refusal.TOO_MANY, f"more than {MEMBERS_MAX} members")
            return
        if known.member.instance == member.instance:
            return
        elsewhere = known.member.grpc != address and self._answers(known.member)
        if elsewhere or member.id == self._me.id:
            problem = f"{address} has the id of {known.member.grpc} ({member.id}): a copied disk?"
            raise Refused(Refusal.DUPLICATE_ID, problem)

    def _answers(self, member: Member) -> bool:
        """Whether a member is where we know him to be."""
        place = self._places.get(member.grpc)
        return (
            place is not None
            and place.id == member.id
            and not place.silences
            and member.state is not State.LOST
        )

    def _enter(self, member: Member, now: float, place: _Place | None = None) -> Member:
        entry = self._entries.setdefault(member.id, _Entry(member))
        entry.said = member.state
        if place is not None and not place.candidate.serving and member.state is State.READY:
            member = replace(member, state=State.DRAINING)
        entry.member = member
        if member.state is State.READY:
            entry.was_ready, entry.away_since = True, None
        elif entry.was_ready and entry.away_since is None:
            entry.away_since = now
        return member

    def _lose(self, id_: str, address: str, now: float) -> None:
        entry = self._entries.get(id_)
        if entry is None or entry.member.grpc != address or id_ == self._me.id:
            return
        if not entry.was_ready:
            del self._entries[id_]
            return
        self._enter(replace(entry.member, state=State.LOST), now)


def changed_weights(
    before: Mapping[str, int], after: Mapping[str, int]
) -> tuple[dict[str, int], list[str]]:
    """Who joined (or changed weight) and who left, for `Placement.change`."""
    joined = {id_: weight for id_, weight in after.items() if before.get(id_) != weight}
    return joined, [id_ for id_ in before if id_ not in after]
