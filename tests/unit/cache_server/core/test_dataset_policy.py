"""Which dataset gives way to which, and what of a dataset stays."""

import random
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.policy import traces
from benchmarks.policy.replay import Access, replay
from cache_server.core.dataset_policy import (
    DATASETS_MAX,
    DATASETS_SEEN,
    IDLE_S,
    UNPROVEN,
    VISIT_S,
    VISITS_MAX,
    DatasetPolicy,
)
from cache_server.core.eviction import Shard, Victims

MANY = 1 << 40


def shard(number: int, dataset: int = 1, size: int = 10) -> Shard:
    return Shard(random.Random(f"{dataset}/{number}").randbytes(16), size, dataset)


def shards(count: int, dataset: int = 1) -> list[Shard]:
    return [shard(number, dataset) for number in range(count)]


def fill(policy: DatasetPolicy, kept: Iterable[Shard], now_s: float = 0.0) -> None:
    for each in kept:
        policy.add(each, now_s)


def read_again(policy: DatasetPolicy, kept: Iterable[Shard], now_s: float) -> None:
    for each in kept:
        policy.touch(each.digest, each.dataset, now_s)


def offered(policy: DatasetPolicy, newcomer: Shard, now_s: float) -> list[Victims]:
    """Offer it where there is no room, and have way made for it if it is wanted."""
    if not policy.offer(newcomer, newcomer.size, now_s):
        return []
    chosen = policy.make_way(newcomer, newcomer.size, newcomer.size, now_s)
    assert chosen
    return chosen


# -- one dataset -----------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(1, 50), min_size=2, max_size=40),
    cached=st.floats(0.05, 0.95),
    rng=st.randoms(use_true_random=False),
)
def test_the_resident_part_is_fixed_over_scans(sizes, cached, rng):
    """SEMANTICS 13: a dataset that is read once per epoch and does not fit keeps a fixed part; the rest is
    passed on from memory."""
    everything = [shard(number, 1, size) for number, size in enumerate(sizes)]
    capacity = int(sum(sizes) * cached)
    policy = DatasetPolicy()
    trace = [
        Access(epoch * 1000.0 + place * 1000.0 / len(sizes), each, epoch)
        for epoch in range(6)
        for place, each in enumerate(rng.sample(everything, len(everything)))
    ]
    found = replay(trace, policy, capacity)
    assert found.used_max_bytes <= capacity
    # What is small may still fit into a gap in the second epoch; from then on nothing moves.
    assert [found.phases[epoch].taken_in for epoch in range(2, 6)] == [0, 0, 0, 0]
    assert {found.phases[epoch].hits for epoch in range(2, 6)} == {len(policy)}


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 39), st.integers(0, 2), st.sampled_from([0.0, 1.0, 70.0, 400.0])),
        max_size=400,
    ),
    capacity=st.integers(10, 300),
)
def test_capacity_and_pins_are_respected_whatever_is_read(steps, capacity):
    policy = DatasetPolicy()
    now_s, trace = 0.0, []
    pinned = shard(7, 1, 10)
    policy.add(pinned, 0.0)
    policy.remove(pinned.digest, pinned.dataset)  # as the store does when it pins
    for number, dataset, passed_s in steps:
        now_s += passed_s
        if (number, dataset) != (7, 1):
            trace.append(Access(now_s, shard(number, dataset), 0))
    found = replay(trace, policy, capacity)  # it fails on a victim that is not there
    assert found.used_max_bytes <= capacity
    assert found.phases[0].asked == len(trace)


def test_what_is_read_once_displaces_nothing():
    policy = DatasetPolicy()
    hot = shards(100)
    fill(policy, hot)
    for turn in range(20):  # half of it is used no more
        read_again(policy, hot[:50], (turn + 1) * VISIT_S)
    now_s = 30 * VISIT_S
    assert not any(offered(policy, shard(1000 + number), now_s) for number in range(200))
    again = offered(policy, shard(1000), now_s + VISIT_S)
    assert [victims.reason for victims in again] == ["stale"]
    assert {digest for victims in again for digest in victims.digests} <= {
        each.digest for each in hot[50:]
    }


def test_a_reader_that_opens_a_shard_many_times_makes_one_visit():
    policy = DatasetPolicy()
    kept = shards(10)
    fill(policy, kept)
    for second in range(1000):
        read_again(policy, kept[:1], float(second) / 100)
    assert policy._datasets[1].rereads == 1
    newcomer = shard(99)
    for second in range(50):
        assert not policy.offer(newcomer, 10, 10.0 + second / 10)
    (use,) = policy.uses(15.0)
    assert (use.streamed_shards, use.streamed_bytes) == (1, 10)


def test_residents_nobody_reads_make_way_within_their_own_dataset():
    """A job goes on to another directory of what is one dataset to us."""
    old, new = traces.dataset(1, 200), [traces.shard(1, 1000 + n) for n in range(200)]
    trace = traces.switch(old, new, 8, seed=1)
    found = replay(trace, DatasetPolicy(idle_s=1e9), 100 * traces.SHARD_BYTES)
    assert found.phases[7].hits == 100
    assert found.phases[15].hits == 100


def test_a_part_that_nobody_reads_any_more_makes_way_within_some_epochs():
    everything = traces.dataset(1, 400)
    trace = traces.switch(everything, everything[:150], 8, seed=1)
    found = replay(trace, DatasetPolicy(), 300 << 20)
    assert found.phases[7].hits == 300
    assert found.phases[15].hits == 150


# -- several datasets ------------------------------------------------------------------------------


def test_the_dataset_longest_idle_goes_first():
    """SEMANTICS 13: a dataset that nobody has read for `dataset_idle_s` gives way to those that are
    read."""
    policy = DatasetPolicy()
    for dataset, now_s in ((1, 0.0), (2, 10.0), (3, IDLE_S)):
        fill(policy, shards(5, dataset), now_s)
    now_s = IDLE_S + 20.0
    victims = policy.make_way(shard(0, 4), 60, 60, now_s)
    gone = {digest for each in victims for digest in each.digests}
    assert {each.reason for each in victims} == {"idle"}
    assert gone >= {each.digest for each in shards(5, 1)}
    assert gone.isdisjoint({each.digest for each in shards(5, 3)})


def test_another_job_displaces_a_finished_one_in_its_first_epoch():
    first, second = traces.dataset(1, 100), traces.dataset(2, 100)
    found = replay(traces.switch(first, second, 4, seed=3), DatasetPolicy(), 50 << 20)
    assert found.phases[4].taken_in == 50
    assert [found.phases[epoch].hits for epoch in (5, 6, 7)] == [50, 50, 50]
    assert [found.phases[epoch].taken_in for epoch in (5, 6, 7)] == [0, 0, 0]


def test_a_validation_set_keeps_its_place_between_its_turns():
    training, validation = traces.dataset(1, 90), traces.dataset(2, 10)
    trace, now_s = [], 0.0
    for epoch in range(8):
        for part in (training, validation):
            for each in random.Random(epoch).sample(part, len(part)):
                trace.append(Access(now_s, each, epoch))
                now_s += 36.0
    found = replay(trace, DatasetPolicy(), 50 << 20)
    assert [found.phases[epoch].hits for epoch in range(4, 8)] == [50] * 4
    assert [found.phases[epoch].taken_in for epoch in range(4, 8)] == [0] * 4


def test_two_active_datasets_come_to_equal_shares():
    """SEMANTICS 13: datasets that are read at one time come to equal shares of the space."""
    first, second = traces.dataset(1, 200), traces.dataset(2, 200)
    policy = DatasetPolicy()
    trace = traces.two_datasets(first, second, 8, seed=3)
    found = replay(trace, policy, 100 << 20)
    sizes = {use.dataset: use.bytes >> 20 for use in policy.uses(8 * traces.EPOCH_S)}
    assert sum(sizes.values()) == 100
    assert abs(sizes[1] - sizes[2]) <= 5
    assert found.phases[7].taken_in == 0


def test_what_was_never_read_twice_gets_a_small_share_of_what_is_in_use():
    policy = DatasetPolicy()
    training = shards(100, 1)
    fill(policy, training)
    read_again(policy, training, VISIT_S)
    backup_bytes = sum(
        10 for number in range(1000) if offered_and_added(policy, shard(number, 2), VISIT_S + 1)
    )
    assert 0.5 * 1000 / (UNPROVEN + 1) <= backup_bytes <= 1000 / (UNPROVEN + 1)


def offered_and_added(policy: DatasetPolicy, newcomer: Shard, now_s: float) -> bool:
    taken = bool(offered(policy, newcomer, now_s))
    if taken:
        policy.add(newcomer, now_s)
    return taken


def test_a_declared_dataset_has_its_share_at_once():
    policy = DatasetPolicy()
    training = shards(100, 1)
    fill(policy, training)
    read_again(policy, training, VISIT_S)
    policy.declare(2, VISIT_S)
    taken = sum(offered_and_added(policy, shard(n, 2), VISIT_S + 1) for n in range(1000))
    assert 45 <= taken <= 50


def test_a_refusal_changes_nothing():
    policy = DatasetPolicy()
    fill(policy, shards(5, 1))
    assert policy.make_way(shard(0, 1), 10, 10, 1.0) == []
    assert policy.make_way(shard(0, 2), 60, 60, 1.0) == []
    assert len(policy) == 5


# -- owners and replicas ---------------------------------------------------------------------------


def test_replicas_go_before_what_is_owned_and_displace_none_of_it():
    """SEMANTICS 13: replicas go before what the node owns, and displace none of it."""
    owned = {each.digest for each in shards(200)[:100]}
    policy = DatasetPolicy(owns=owned.__contains__)
    fill(policy, shards(200)[80:120])  # 20 owned, 20 replicas
    for number in range(20):
        (victims,) = offered(policy, shard(number), 1.0)
        assert victims.reason == "replica"
        assert owned.isdisjoint(victims.digests)
        policy.add(shard(number), 1.0)
    assert not offered(policy, shard(20), 1.0)
    assert not offered(policy, shard(150), 1.0)
    (use,) = policy.uses(1.0)
    assert (use.bytes, use.replica_bytes) == (400, 0)


def test_placement_that_changes_is_noticed_while_shards_are_used():
    owned: set[bytes] = set()
    policy = DatasetPolicy(owns=owned.__contains__)
    kept = shards(100)
    fill(policy, kept)
    owned |= {each.digest for each in kept[:50]}
    for turn in range(4):
        read_again(policy, kept, (turn + 1) * VISIT_S)
    (use,) = policy.uses(0.0)
    assert (use.bytes, use.replica_bytes) == (1000, 500)


# -- bounds ----------------------------------------------------------------------------------------


def test_memory_is_bounded_by_what_is_resident():
    policy = DatasetPolicy()
    fill(policy, shards(100, 0))
    for number in range(3 * DATASETS_MAX):
        policy.offer(shard(0, number + 1), 10, float(number))
    assert len(policy._datasets) <= DATASETS_MAX + 1
    for number in range(20 * VISITS_MAX):
        policy.offer(shard(number, 1), 10, 1e6)
    assert len(policy._datasets[1].recent) <= VISITS_MAX + 1


def test_decisions_do_not_look_at_every_dataset():
    policy = DatasetPolicy()
    fill(policy, (shard(0, number) for number in range(5000)))
    seen = 0

    def idle(*_) -> bool:
        nonlocal seen
        seen += 1
        return False

    policy._idle = idle  # type: ignore[method-assign,assignment]
    policy.offer(shard(1, 1), 10, 1.0)
    assert seen <= 2 * DATASETS_SEEN
