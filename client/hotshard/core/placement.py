"""Which members own a shard: a table of slots, the same on every member that sees the same members.

A shard's digest names a slot (its first bits); a slot has up to `replicas` owners on distinct members, in
order. Every member throws darts at the slots: the stream is pseudo-random, made from its id alone, and it
throws `weight` of them per unit of time. A slot likes the members whose darts hit it best, earliest first;
that alone is weighted rendezvous hashing, at a cost that does not grow with the number of members. So that
nobody owns over 1.10 of its fair share of first ranks (`load_cap`), slots and members are then matched:
a full member keeps the slots that it hit first.

Both sides of the matching rank pairs by the same thing, the time of the dart, so exactly one matching is
stable. That is what makes the table a function of the members and not of their history: however one gets
to a stable matching, by a full build or from the one before the last change (`Placement.change`), it is
the same one, bit for bit. Golden vectors in the tests say when it changes; it must not, within a cluster.

What members must agree on: ids, weights, `slots`, `replicas`. docs/adr/0004-placement.md has the figures.
"""

from collections.abc import Iterable, Mapping

from hotshard.core.matching import DEPTH, Matching
from hotshard.core.slots import (
    MEMBERS_MAX,
    REPLICAS_MAX,
    SLOTS_DEFAULT,
    WEIGHT_MAX,
    Table,
    check_slots,
)


def build(weights: Mapping[str, int], *, slots: int = SLOTS_DEFAULT, replicas: int = 2) -> Table:
    """The table of these members (id -> weight)."""
    placement = Placement(slots=slots, replicas=replicas)
    placement.change(weights, ())
    return placement.table()


class Placement:
    """Keeps what it takes to change a table quickly: a join or leave costs about the darts of one member.

    About 250 bytes of memory per slot. A change may take up to a few hundred milliseconds when the table
    is rebuilt (few members, or the total weight doubled or halved): it belongs into a thread.
    """

    def __init__(self, *, slots: int = SLOTS_DEFAULT, replicas: int = 2) -> None:
        check_slots(slots)
        if not 1 <= replicas <= REPLICAS_MAX:
            raise ValueError(f"{replicas} replicas; should be from 1 to {REPLICAS_MAX}")
        self._slots = slots
        self._replicas = replicas
        self._weights: dict[str, int] = {}
        self._matching = Matching(slots, {}, replicas, DEPTH)

    @property
    def weights(self) -> Mapping[str, int]:
        """The members."""
        return self._weights

    def change(self, joined: Mapping[str, int], left: Iterable[str]) -> None:
        """Let members leave and join; one that does both gets its new weight.

        Raises:
            ValueError: a weight that is none, or too many members; nothing was changed.
            KeyError: somebody leaves who is not there; nothing was changed.
        """
        weights = dict(self._weights)
        gone = [(id_, weights.pop(id_)) for id_ in left]
        weights |= joined
        _check(weights)
        replaced = [(id_, self._weights[id_]) for id_ in joined if id_ in self._weights]
        gone += [pair for pair in replaced if pair not in gone]
        self._weights = weights
        matching = self._matching
        if matching.fits(weights):
            matching.change(joined, gone)
        else:
            matching = Matching(self._slots, weights, self._replicas, DEPTH)
        depth = DEPTH
        while not matching.complete:
            depth += depth // 2
            matching = Matching(self._slots, weights, self._replicas, depth)
        self._matching = matching

    def table(self) -> Table:
        """The table of the members as they are now."""
        return self._matching.table()


def _check(weights: Mapping[str, int]) -> None:
    if len(weights) > MEMBERS_MAX:
        raise ValueError(f"{len(weights)} members; should be at most {MEMBERS_MAX}")
    for id_, weight in weights.items():
        if not id_ or not 1 <= weight <= WEIGHT_MAX:
            raise ValueError(f"member {id_!r} of weight {weight}; should be from 1 to {WEIGHT_MAX}")
