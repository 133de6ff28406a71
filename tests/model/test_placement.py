"""Whatever members come and go, in whatever order: the table is that of a full build, and fair."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hotshard.core.matching import load_cap
from hotshard.core.placement import (
    Placement,
    build,
)
from hotshard.core.slots import SLOTS_MIN, WEIGHT_MAX, Table

IDS = st.sampled_from([f"node-{i}" for i in range(12)])
WEIGHTS = st.one_of(st.sampled_from([50, 100, 100, 200]), st.integers(1, WEIGHT_MAX))
MEMBERS = st.dictionaries(IDS, WEIGHTS, max_size=12)


class PlacementMachine(RuleBasedStateMachine):
    """A placement that is changed step by step, against one that is built from what is there."""

    def __init__(self):
        super().__init__()
        self.placement = Placement(slots=SLOTS_MIN, replicas=3)
        self.weights: dict[str, int] = {}

    @rule(id_=IDS, weight=WEIGHTS)
    def join_or_change_weight(self, id_, weight):
        self.placement.change({id_: weight}, ())
        self.weights[id_] = weight

    @precondition(lambda self: self.weights)
    @rule(data=st.data())
    def leave(self, data):
        id_ = data.draw(st.sampled_from(sorted(self.weights)))
        self.placement.change({}, [id_])
        del self.weights[id_]

    @rule(joined=MEMBERS, data=st.data())
    def many_at_once(self, joined, data):
        leaving = st.sets(st.sampled_from(sorted(self.weights))) if self.weights else st.just(set())
        left = data.draw(leaving)
        self.placement.change(joined, left)
        self.weights = {i: w for i, w in self.weights.items() if i not in left} | joined

    @invariant()
    def is_what_a_full_build_gives(self):
        assert self.placement.table() == build(self.weights, slots=SLOTS_MIN, replicas=3)
        assert self.placement.weights == self.weights


PlacementMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None
)
TestPlacement = PlacementMachine.TestCase


@settings(max_examples=50, deadline=None)
@given(MEMBERS, st.integers(1, 4))
def test_owners_are_distinct_and_nobody_is_over_its_cap(weights, replicas):
    table = build(weights, slots=SLOTS_MIN, replicas=replicas)
    width = min(replicas, len(weights))
    for slot in range(table.slots):
        owners = table.owners_of_slot(slot)
        assert len(owners) == len(set(owners)) == width
    total = sum(weights.values())
    for id_, load in table.loads().items():
        assert load <= load_cap(table.slots, weights[id_], total)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(IDS, WEIGHTS, min_size=1, max_size=12))
def test_no_slot_and_member_prefer_each_other_to_what_they_have(weights):
    """Stability, checked from outside: it is what makes the table one of a kind."""
    placement = Placement(slots=SLOTS_MIN)
    placement.change(weights, ())
    matching = placement._matching
    loads = [0] * len(matching._ids)
    latest = [0] * len(matching._ids)
    for key in matching._owner:
        loads[key & 0xFFFF] += 1
        latest[key & 0xFFFF] = max(latest[key & 0xFFFF], key)
    for slot, owner in enumerate(matching._owner):
        for key in matching._liked[slot]:
            if key == owner:
                break
            number = key & 0xFFFF
            assert loads[number] == matching._cap[number]
            assert latest[number] < key


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(IDS, st.just(100), min_size=4, max_size=12), st.data())
def test_one_leaving_moves_little_more_than_what_it_owned(weights, data):
    before = build(weights, slots=1 << 12)
    left = data.draw(st.sampled_from(sorted(weights)))
    after = build({i: w for i, w in weights.items() if i != left}, slots=1 << 12)
    ideal = before.slots / len(weights)
    assert before.loads()[left] <= before.moved(after) <= 1.3 * ideal


@settings(max_examples=20, deadline=None)
@given(MEMBERS, IDS)
def test_a_newcomer_takes_slots_and_its_leaving_gives_them_back(weights, id_):
    assume(id_ not in weights)
    placement = Placement(slots=SLOTS_MIN)
    placement.change(weights, ())
    before = placement.table()
    placement.change({id_: 100}, ())
    assert placement.table().loads()[id_] > 0
    placement.change({}, [id_])
    assert placement.table() == before


@settings(max_examples=20, deadline=None)
@given(MEMBERS, st.binary(min_size=16, max_size=16))
def test_a_table_travels(weights, digest):
    table = build(weights, slots=SLOTS_MIN)
    copy = Table.unpacked(table.slots, table.ids, table.width, table.packed())
    assert copy == table
    assert copy.owners(digest) == table.owners(digest)
    assert copy.owners(digest)[:1] == tuple(filter(None, [copy.owner(digest)]))
