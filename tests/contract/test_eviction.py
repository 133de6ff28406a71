"""What every eviction policy must do: ours, and those it is compared with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.policy.others import Lru, S3Fifo
from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.core.eviction import REASONS, EvictionPolicy, Shard, Victims

POLICIES = pytest.mark.parametrize("new_policy", [DatasetPolicy, Lru, S3Fifo])

NUMBERS = st.integers(0, 15)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "touch", "remove", "offer", "make_way", "victims"]),
        NUMBERS,
        st.integers(1, 50),
        st.sampled_from([0.0, 1.0, 100.0, 400.0]),  # seconds that pass
    ),
    max_size=200,
)


def shard(number: int, size: int = 10) -> Shard:
    """Of one of three datasets."""
    return Shard(number.to_bytes(16, "big"), size, number % 3)


def digests(chosen: list[Victims]) -> list[bytes]:
    return [digest for victims in chosen for digest in victims.digests]


@POLICIES
@given(steps=STEPS)
def test_it_holds_what_was_added_and_gives_up_just_enough(new_policy, steps):
    policy: EvictionPolicy = new_policy()
    model: dict[bytes, int] = {}
    now_s = 0.0
    for name, number, size, passed_s in steps:
        now_s += passed_s
        newcomer = shard(number, size)
        if name == "add":
            policy.add(newcomer, now_s)
            model[newcomer.digest] = size
        elif name == "touch":
            policy.touch(newcomer.digest, newcomer.dataset, now_s)
        elif name == "remove":
            policy.remove(newcomer.digest, newcomer.dataset)
            model.pop(newcomer.digest, None)
        elif name == "offer":
            assert policy.offer(newcomer, 0, now_s)
            policy.offer(newcomer, size, now_s)
        elif newcomer.digest not in model or name == "victims":
            if name == "victims":
                chosen = policy.victims(size, now_s)
            else:
                chosen = policy.make_way(newcomer, size, size, now_s)
            gone = digests(chosen)
            assert len(set(gone)) == len(gone)
            assert all(victims.reason in REASONS and victims.digests for victims in chosen)
            sizes = [model.pop(digest) for digest in gone]
            assert sum(sizes) >= size or not model or (name == "make_way" and not gone)
            assert sum(sizes[:-1]) < size or not sizes
        assert len(policy) == len(model)
    assert sorted(digests(policy.victims(1 << 40, now_s))) == sorted(model)


@POLICIES
def test_nothing_is_chosen_when_nothing_is_needed(new_policy):
    policy = new_policy()
    policy.add(shard(1), 0.0)
    assert policy.victims(0, 0.0) == []
    assert policy.victims(-5, 0.0) == []
    assert new_policy().victims(10, 0.0) == []


@POLICIES
def test_unused_entries_leave_in_the_order_they_came(new_policy):
    policy = new_policy()
    shards = [shard(3 * number) for number in range(10)]
    for each in shards:
        policy.add(each, 0.0)
    assert digests(policy.victims(35, 0.0)) == [each.digest for each in shards[:4]]


@POLICIES
def test_a_much_used_entry_outlives_the_others(new_policy):
    policy = new_policy()
    shards = [shard(3 * number) for number in range(10)]
    for each in shards:
        policy.add(each, 0.0)
    for turn in range(3):
        policy.touch(shards[0].digest, shards[0].dataset, 100.0 * turn)
    assert shards[0].digest not in digests(policy.victims(90, 300.0))


@POLICIES
def test_adding_again_replaces_the_size(new_policy):
    policy = new_policy()
    policy.add(shard(1, 10), 0.0)
    policy.add(shard(1, 30), 0.0)
    assert len(policy) == 1
    assert digests(policy.victims(20, 0.0)) == [shard(1).digest]
