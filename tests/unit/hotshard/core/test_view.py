import functools
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hotshard.core.members import Member, State
from hotshard.core.placement import build
from hotshard.core.slots import SLOTS_MIN
from hotshard.core.view import PAST_MAX, PAST_S, PREVIOUS_MAX, View

DIGESTS = [bytes([i, 77 * i % 256, 0, 0]) + bytes(12) for i in range(256)]


def members(count: int, **states: State) -> tuple[Member, ...]:
    return tuple(
        Member(f"m{i}", f"h{i}:1", zone="a", state=states.get(f"m{i}", State.READY))
        for i in range(count)
    )


@functools.cache
def table(count: int):
    return build({f"m{i}": 100 for i in range(count)}, slots=SLOTS_MIN)


def view(count: int, **states: State) -> View:
    return View("prod", "m0", members(count, **states), table(count))


def ids(found) -> list[str]:
    return [m.id for m in found]


def test_equal_members_give_equal_versions_and_others_do_not():
    assert view(3).version == View("prod", "m1", members(3), table(3)).version
    assert view(3).version == view(3, m1=State.LOST).version
    assert len({view(3).version, view(4).version, replace(view(3), cluster="x").version}) == 3
    assert 0 <= view(3).version < 1 << 63


def test_the_next_owner_stands_in_for_one_who_is_away():
    for digest in DIGESTS:
        first, second = view(4).owners(digest)
        for state in (State.LOST, State.DRAINING):
            assert view(4, **{first.id: state}).owners(digest) == [second]


def test_when_all_owners_are_away_everybody_asks_the_same_other_one():
    for digest in DIGESTS:
        first, second = ids(view(5).owners(digest))
        away = {first: State.LOST, second: State.DRAINING}
        seen = [
            View("prod", me, members(5, **away), table(5)).owners(digest) for me in ("m0", "m4")
        ]
        assert seen[0] == seen[1]
        assert seen[0][0].state is State.READY


def test_nobody_is_ready():
    alone = view(1, m0=State.JOINING)
    assert alone.owners(bytes(16)) == []
    assert view(2, m0=State.DRAINING, m1=State.LOST).owners(bytes(16)) == []


def test_who_drains_is_asked_for_what_he_has():
    for digest in DIGESTS:
        first = view(4).owners(digest)[0].id
        draining, lost = view(4, **{first: State.DRAINING}), view(4, **{first: State.LOST})
        assert ids(draining.previous_owners(digest)) == [first]
        assert lost.previous_owners(digest) == []
        assert view(4).previous_owners(digest) == []


def test_after_a_join_the_owners_before_are_asked():
    grown = view(4).succeeded(members(5), table(5), 100.0)
    moved = 0
    for digest in DIGESTS:
        before, now = view(4).owners(digest)[0].id, grown.owners(digest)[0].id
        assert ids(grown.previous_owners(digest)) == ([before] if before != now else [])
        moved += before != now
    assert moved


def test_who_stood_in_is_asked_when_the_owner_is_back():
    whole = view(4)
    outage = whole.succeeded(members(4, m1=State.LOST), table(4), 10.0)
    back = outage.succeeded(members(4), table(4), 20.0)
    for digest in DIGESTS:
        first, second = whole.owners(digest)
        assert back.owners(digest) == [first, second]
        assert ids(back.previous_owners(digest)) == ([second.id] if first.id == "m1" else [])


def test_the_past_ends():
    outage = view(4).succeeded(members(4, m1=State.LOST), table(4), 10.0)
    assert outage.succeeded(outage.members, outage.table, 11.0).past == outage.past
    assert outage.succeeded(outage.members, outage.table, 10.0 + PAST_S).past == ()


def test_the_past_is_bounded():
    now = view(4)
    for i in range(2 * PAST_MAX):
        states = {} if i % 2 else {"m1": State.LOST}
        now = now.succeeded(members(4, **states), table(4), float(i))
    assert len(now.past) == PAST_MAX


def test_members_of_other_zones_are_seen_and_never_asked():
    mixed = (*members(2), Member("z", "z:1", zone="b", state=State.READY))
    seen = View("prod", "m0", mixed, table(2))
    assert seen.zone == "a"
    assert seen.member("z") is mixed[2]
    assert seen.member("nobody") is None
    assert all("z" not in ids(seen.owners(d)) for d in DIGESTS)


STATES = st.sampled_from(list(State))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(STATES, min_size=5, max_size=5), min_size=1, max_size=6), st.data())
def test_only_those_are_asked_who_can_answer(history, data):
    now = view(5)
    for i, states in enumerate(history):
        named = {f"m{n}": state for n, state in enumerate(states)}
        now = now.succeeded(members(5, **named), table(5), float(i))
    digest = data.draw(st.sampled_from(DIGESTS))
    owners, previous = now.owners(digest), now.previous_owners(digest)
    assert all(m.state is State.READY for m in owners)
    assert all(m.state in (State.READY, State.DRAINING) for m in previous)
    assert len(previous) <= PREVIOUS_MAX
    assert len(set(ids(previous))) == len(previous)
    assert not owners or owners[0].id not in ids(previous)
