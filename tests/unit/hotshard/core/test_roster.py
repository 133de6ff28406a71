from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hotshard.core.members import Candidate, Member, Refusal, Refused, State, Terms
from hotshard.core.roster import SILENCES_MAX, Roster

TERMS = Terms("prod", 16384, 2, 256 << 20)
ME = Member("me", "10.0.0.1:7070", zone="a", state=State.READY, instance=1)
GRACE_S = 600.0


def listed(*numbers: int, **more) -> list[Candidate]:
    return [Candidate(f"10.0.0.{n}:7070", **more) for n in numbers]


def member(number: int, state: State = State.READY, **more) -> Member:
    fields = {"zone": "a", "state": state, "instance": number, **more}
    return Member(f"m{number}", f"10.0.0.{number}:7070", **fields)


@pytest.fixture
def roster():
    roster = Roster(ME, TERMS, grace_s=GRACE_S)
    assert roster.listed(listed(1, 2, 3), 0) == []
    for number in (2, 3):
        roster.met(f"10.0.0.{number}:7070", member(number), TERMS, 0)
    return roster


def states(roster) -> dict[str, str]:
    return {m.id: str(m.state) for m in roster.members()}


def refused(roster, address, member, terms=TERMS, now=0.0) -> Refusal:
    with pytest.raises(Refused) as caught:
        roster.met(address, member, terms, now)
    return caught.value.refusal


def test_who_answers_and_is_listed_is_in(roster):
    assert states(roster) == {"me": "ready", "m2": "ready", "m3": "ready"}
    assert roster.weights() == {"me": 100, "m2": 100, "m3": 100}
    assert [c.address for c in roster.addresses] == [f"10.0.0.{n}:7070" for n in (1, 2, 3)]


def test_our_own_address_is_found_out_by_asking(roster):
    roster.met(ME.grpc, replace(ME, state=State.JOINING), TERMS, 0)
    assert [c.address for c in roster.addresses] == ["10.0.0.2:7070", "10.0.0.3:7070"]
    assert states(roster)["me"] == "ready"


def test_a_joining_member_owns_nothing_yet(roster):
    roster.listed(listed(1, 2, 3, 4), 0)
    roster.met("10.0.0.4:7070", member(4, State.JOINING), TERMS, 0)
    assert states(roster)["m4"] == "joining"
    assert "m4" not in roster.weights()
    roster.met("10.0.0.4:7070", member(4), TERMS, 1)
    assert "m4" in roster.weights()


def test_who_is_lost_keeps_his_slots_for_the_grace_time(roster):
    roster.listed(listed(1, 2), 10)
    assert states(roster)["m3"] == "lost"
    assert "m3" in roster.weights()
    assert roster.expires_at() == 10 + GRACE_S
    assert not roster.expire(9 + GRACE_S)
    assert roster.expire(10 + GRACE_S)
    assert states(roster) == {"me": "ready", "m2": "ready"}
    assert roster.expires_at() is None


def test_who_comes_back_in_time_has_his_slots_and_perhaps_a_new_address(roster):
    roster.listed(listed(1, 2), 10)
    roster.listed(listed(1, 2, 9), 20)
    found = roster.met("10.0.0.9:7070", member(3, instance=77), TERMS, 21)
    assert (found.id, found.grpc, found.state) == ("m3", "10.0.0.9:7070", State.READY)
    assert roster.expires_at() is None
    assert roster.weights().keys() == {"me", "m2", "m3"}


def test_silence_is_forgiven_once(roster):
    address = "10.0.0.3:7070"
    for i in range(SILENCES_MAX):
        assert states(roster)["m3"] == "ready"
        roster.silent(address, 10 + i)
    assert states(roster)["m3"] == "lost"
    roster.listed(listed(1, 2, 3), 20)
    assert states(roster)["m3"] == "lost"
    roster.met(address, member(3), TERMS, 30)
    assert states(roster)["m3"] == "ready"
    roster.silent("10.9.9.9:1", 40)


def test_draining_keeps_slots_for_the_grace_and_stays_in_sight(roster):
    roster.met("10.0.0.3:7070", member(3, State.DRAINING), TERMS, 5)
    roster.met("10.0.0.3:7070", member(3, State.DRAINING), TERMS, 500)
    assert "m3" in roster.weights()
    assert roster.expire(5 + GRACE_S)
    assert "m3" not in roster.weights()
    assert states(roster)["m3"] == "draining"
    roster.listed(listed(1, 2), 1000)
    assert "m3" not in states(roster)


def test_the_provider_may_say_that_somebody_should_get_nothing_new(roster):
    flapping = [*listed(1, 2), *listed(3, serving=False)]
    roster.listed(flapping, 5)
    assert states(roster)["m3"] == "draining"
    roster.met("10.0.0.3:7070", member(3), TERMS, 6)
    assert states(roster)["m3"] == "draining"
    roster.listed(listed(1, 2, 3), 7)
    assert states(roster)["m3"] == "ready"
    assert roster.expires_at() is None


def test_the_zone_of_the_provider_counts(roster):
    roster.listed([*listed(1, 2), *listed(3, zone="b")], 1)
    roster.met("10.0.0.3:7070", member(3), TERMS, 1)
    assert "m3" not in roster.weights()
    assert states(roster)["m3"] == "ready"


def test_our_own_zone_may_come_from_the_provider():
    roster = Roster(replace(ME, zone=""), TERMS)
    roster.listed(listed(1, zone="c"), 0)
    assert roster.met(ME.grpc, ME, TERMS, 0).zone == "c"
    assert roster.me.zone == "c"


def test_our_own_states(roster):
    roster.become(State.DRAINING, 3)
    assert states(roster)["me"] == "draining"
    assert "me" in roster.weights()
    assert roster.expire(3 + GRACE_S)
    assert "me" not in roster.weights()
    assert "me" in states(roster)


def test_what_is_refused(roster):
    before = roster.members()
    roster.listed(listed(1, 2, 3, 4), 0)
    four = "10.0.0.4:7070"
    assert refused(roster, "10.7.7.7:7070", member(7)) is Refusal.NOT_LISTED
    assert refused(roster, four, member(4), replace(TERMS, cluster="dev")) is Refusal.OTHER_TERMS
    assert refused(roster, four, member(4), replace(TERMS, slots=65536)) is Refusal.OTHER_TERMS
    assert refused(roster, four, member(4, weight=0)) is Refusal.BAD_WEIGHT
    assert refused(roster, four, replace(member(4), id="")) is Refusal.BAD_ID
    assert refused(roster, four, replace(member(4), id="m3")) is Refusal.DUPLICATE_ID
    assert refused(roster, four, replace(member(4), id="me")) is Refusal.DUPLICATE_ID
    assert roster.members() == before


def test_bad_addresses_of_the_provider_are_refused_and_the_others_taken(roster):
    (problem,) = roster.listed([*listed(1, 2, 3), Candidate("nonsense")], 1)
    assert problem.refusal is Refusal.BAD_ADDRESS
    assert states(roster).keys() == {"me", "m2", "m3"}


def test_the_same_process_at_two_addresses_is_one_member(roster):
    roster.listed(listed(1, 2, 3, 4), 0)
    found = roster.met("10.0.0.4:7070", member(3), TERMS, 1)
    assert found.grpc == "10.0.0.3:7070"
    assert states(roster).keys() == {"me", "m2", "m3"}


def test_another_disk_at_the_same_address(roster):
    roster.met("10.0.0.3:7070", replace(member(3), id="fresh", instance=9), TERMS, 5)
    assert states(roster) == {"me": "ready", "m2": "ready", "m3": "lost", "fresh": "ready"}


def test_who_turns_into_a_stranger_is_lost(roster):
    stranger = replace(TERMS, cluster="dev")
    assert refused(roster, "10.0.0.3:7070", member(3), stranger, 5) is Refusal.OTHER_TERMS
    assert states(roster)["m3"] == "lost"


class Cluster(RuleBasedStateMachine):
    """Anything may happen in any order; what holds at all times."""

    numbers = st.integers(1, 5)

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.roster = Roster(ME, TERMS, grace_s=GRACE_S)
        self.listed_now: set[int] = set()

    @rule(seconds=st.sampled_from([1.0, 100.0, GRACE_S]))
    def time_goes_by(self, seconds):
        self.now += seconds
        self.roster.expire(self.now)

    @rule(numbers=st.sets(numbers), serving=st.booleans())
    def the_provider_says(self, numbers, serving):
        self.listed_now = numbers
        self.roster.listed(listed(*numbers, serving=serving), self.now)

    @rule(
        number=numbers,
        id_=st.sampled_from(["me", "m2", "m3", "m4", ""]),
        instance=st.integers(1, 3),
        state=st.sampled_from([State.JOINING, State.READY, State.DRAINING]),
        cluster=st.sampled_from(["prod", "prod", "prod", "dev"]),
    )
    def somebody_answers(self, number, id_, instance, state, cluster):
        found = replace(member(number, state, instance=instance), id=id_)
        try:
            terms = replace(TERMS, cluster=cluster)
            self.roster.met(found.grpc, found, terms, self.now)
        except Refused:
            return
        assert number in self.listed_now
        assert cluster == "prod"

    @precondition(lambda self: self.listed_now)
    @rule(number=numbers)
    def nobody_answers(self, number):
        self.roster.silent(f"10.0.0.{number}:7070", self.now)

    @invariant()
    def is_sound(self):
        members = self.roster.members()
        ids = [m.id for m in members]
        assert ids == sorted(set(ids))
        assert "me" in ids
        assert next(m for m in members if m.id == "me").state is State.READY
        weights = self.roster.weights()
        assert {m.id for m in members if m.state is State.READY} <= set(weights) <= set(ids)
        addresses = [m.grpc for m in members if m.state is not State.LOST and m.id != "me"]
        assert len(addresses) == len(set(addresses))
        due = self.roster.expires_at()
        assert due is None or due > self.now - GRACE_S


Cluster.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestCluster = Cluster.TestCase
