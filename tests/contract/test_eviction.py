"""What every eviction policy must do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.eviction import EvictionPolicy, Lru, S3Fifo

POLICIES = pytest.mark.parametrize("new_policy", [Lru, S3Fifo])

DIGESTS = st.integers(0, 11).map(lambda n: n.to_bytes(16, "big"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), DIGESTS, st.integers(1, 50)),
        st.tuples(st.just("touch"), DIGESTS, st.just(0)),
        st.tuples(st.just("remove"), DIGESTS, st.just(0)),
        st.tuples(st.just("victims"), st.just(b""), st.integers(0, 120)),
    ),
    max_size=200,
)


@POLICIES
@given(steps=STEPS)
def test_it_holds_what_was_added_and_gives_up_just_enough(new_policy, steps):
    policy: EvictionPolicy = new_policy()
    model: dict[bytes, int] = {}
    for name, digest, number in steps:
        if name == "add":
            policy.add(digest, number)
            model[digest] = number
        elif name == "touch":
            policy.touch(digest)
        elif name == "remove":
            policy.remove(digest)
            model.pop(digest, None)
        else:
            chosen = policy.victims(number)
            assert len(set(chosen)) == len(chosen)
            sizes = [model.pop(victim) for victim in chosen]
            assert sum(sizes) >= number or not model
            assert sum(sizes[:-1]) < number or not sizes
        assert len(policy) == len(model)
    assert sorted(policy.victims(1 << 40)) == sorted(model)


@POLICIES
def test_nothing_is_chosen_when_nothing_is_needed(new_policy):
    policy = new_policy()
    policy.add(b"a" * 16, 10)
    assert policy.victims(0) == []
    assert policy.victims(-5) == []
    assert new_policy().victims(10) == []


@POLICIES
def test_unused_entries_leave_in_the_order_they_came(new_policy):
    policy = new_policy()
    digests = [bytes([n]) * 16 for n in range(10)]
    for digest in digests:
        policy.add(digest, 10)
    assert policy.victims(35) == digests[:4]


@POLICIES
def test_a_much_used_entry_outlives_the_others(new_policy):
    policy = new_policy()
    digests = [bytes([n]) * 16 for n in range(10)]
    for digest in digests:
        policy.add(digest, 10)
    policy.touch(digests[0])
    policy.touch(digests[0])
    assert digests[0] not in policy.victims(90)


@POLICIES
def test_adding_again_replaces_the_size(new_policy):
    policy = new_policy()
    policy.add(b"a" * 16, 10)
    policy.add(b"a" * 16, 30)
    assert len(policy) == 1
    assert policy.victims(20) == [b"a" * 16]
