"""Traces, the cache without bytes that replays them, and the policies ours is compared with."""

import random
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.policy import traces
from benchmarks.policy.others import Lru, S3Fifo
from benchmarks.policy.recorded import RECORDED, TRAINING, VALIDATION, _numbered, recorded
from benchmarks.policy.replay import Access, minimum, replay
from cache_server.core.eviction import Shard


def trace_of(numbers) -> list[Access]:
    return [
        Access(float(place), Shard(number.to_bytes(16, "big"), 1, 0), 0)
        for place, number in enumerate(numbers)
    ]


def best_by_trying(numbers, capacity: int) -> int:
    """The most hits of any choice: what is kept after each access is any part of what was there and it."""
    states = {frozenset[int](): 0}
    for number in numbers:
        after: dict[frozenset[int], int] = {}
        for kept, hits in states.items():
            now = hits + (number in kept)
            held = kept | {number}
            options = [held] if len(held) <= capacity else [held - {each} for each in held]
            for option in options:
                after[option] = max(after.get(option, 0), now)
        states = after
    return max(states.values())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=14), st.integers(1, 4))
def test_the_offline_optimum_is_the_best_there_is(numbers, capacity):
    found = minimum(trace_of(numbers), capacity).phases[0]
    assert found.hits == best_by_trying(numbers, capacity)
    assert found.asked == len(numbers)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 6))
def test_no_policy_beats_the_offline_optimum(numbers, capacity):
    trace = trace_of(numbers)
    best = minimum(trace, capacity).phases[0].hits
    for policy in (Lru(), S3Fifo()):
        found = replay(trace, policy, capacity)
        assert found.phases[0].hits <= best
        assert found.used_max_bytes <= capacity


def test_lru_is_lru():
    found = replay(trace_of([1, 2, 1, 3, 2, 1]), Lru(), 2)
    assert (found.phases[0].hits, found.phases[0].taken_in) == (1, 5)


def test_a_one_time_scan_does_not_flush_the_hot_set_of_s3_fifo():
    rng = random.Random(5)
    hot = [rng.randrange(80) for _ in range(20_000)]
    mixed = [number for pair in zip(hot, range(1_000, 21_000), strict=True) for number in pair]
    s3_fifo = replay(trace_of(mixed), S3Fifo(), 100).phases[0].hit_ratio
    lru = replay(trace_of(mixed), Lru(), 100).phases[0].hit_ratio
    assert s3_fifo > 0.45  # of at most 0.5
    assert lru < 0.35


def test_every_epoch_has_every_shard_once():
    shards = traces.dataset(1, 50)
    for trace in (
        list(traces.epochs(shards, 3, random.Random(1))),
        list(traces.epochs(shards, 3, random.Random(1), shuffled=False)),
        traces.jobs(shards, 3, 1, seed=2),
    ):
        assert [access.at_s for access in trace] == sorted(access.at_s for access in trace)
        for epoch in range(3):
            read = [access.shard for access in trace if access.phase == epoch]
            assert sorted(read) == sorted(shards)


def test_orders_differ_between_epochs_and_jobs():
    shards = traces.dataset(1, 20)
    orders = [
        tuple(access.shard.digest for access in trace if access.phase == epoch)
        for trace in (list(traces.epochs(shards, 3, random.Random(seed))) for seed in (1, 2))
        for epoch in range(3)
    ]
    assert all(one != other for one, other in permutations(orders, 2))


def test_the_recorded_trace_is_one_of_epochs():
    trace = recorded(RECORDED)
    assert [access.at_s for access in trace] == sorted(access.at_s for access in trace)
    for epoch in range(max(access.phase for access in trace) + 1):
        read = {access.shard.digest for access in trace if access.phase == epoch}
        assert len(read) == TRAINING + VALIDATION


def test_what_is_recorded_is_numbered_in_the_order_it_came():
    lines = ["epoch", "1000 7 aa", "1010 7 bb", "epoch", "1020 3 cc", "1030 7 aa"]
    assert list(_numbered(lines))[1:] == ["epoch", "0 0 0", "10 0 1", "epoch", "20 1 2", "30 0 0"]
