"""Access patterns as traces of visits: seeded and pure.

All shards have one size, so that the capacity is a number of shards and the offline optimum is exact. Time
goes on evenly: an epoch of one job takes EPOCH_S, so that idleness and visits mean what they mean on a
node.
"""

import random
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate

from benchmarks.policy.replay import Access
from cache_server.core.eviction import Shard

EPOCH_S = 3600.0
SHARD_BYTES = 1 << 20
LAST = 1_000_000
"""The phase number of what comes after the last complete epoch."""


def shard(dataset: int, number: int) -> Shard:
    """Shard `number` of a dataset."""
    rng = random.Random(dataset << 40 | number)
    return Shard(rng.randbytes(16), SHARD_BYTES, dataset)


def dataset(number: int, count: int) -> list[Shard]:
    """All shards of a dataset."""
    return [shard(number, each) for each in range(count)]


def epochs(
    shards: list[Shard],
    count: int,
    rng: random.Random,
    *,
    start_s: float = 0.0,
    first_phase: int = 0,
    shuffled: bool = True,
) -> Iterator[Access]:
    """One job: every shard once per epoch, in a new order each time; phases are epochs."""
    order = list(shards)
    rng.shuffle(order)
    step_s = EPOCH_S / len(order)
    for epoch in range(count):
        if shuffled:
            rng.shuffle(order)
        began_s = start_s + epoch * EPOCH_S
        for place, each in enumerate(order):
            yield Access(began_s + place * step_s, each, first_phase + epoch)


def jobs(shards: list[Shard], epochs_each: int, count: int, seed: int) -> list[Access]:
    """Several jobs on one dataset, one after the other by a part of an epoch, each in its own order."""
    parts = [
        epochs(
            shards,
            epochs_each,
            random.Random(f"{seed}/{job}"),
            start_s=job * EPOCH_S / count,
        )
        for job in range(count)
    ]
    merged = sorted((access for part in parts for access in part), key=lambda access: access.at_s)
    return [access._replace(phase=int(access.at_s // EPOCH_S)) for access in merged]


def switch(first: list[Shard], second: list[Shard], epochs_each: int, seed: int) -> list[Access]:
    """A job on one dataset ends, and another one begins on another; the phases go on counting."""
    rng = random.Random(seed)
    before = epochs(first, epochs_each, rng)
    after = epochs(
        second,
        epochs_each,
        rng,
        start_s=epochs_each * EPOCH_S,
        first_phase=epochs_each,
    )
    return [*before, *after]


def two_datasets(first: list[Shard], second: list[Shard], count: int, seed: int) -> list[Access]:
    """Two jobs on two datasets; the second one begins two epochs later."""
    ours = epochs(first, count, random.Random(f"{seed}/1"))
    theirs = epochs(second, count - 2, random.Random(f"{seed}/2"), start_s=2 * EPOCH_S)
    merged = sorted([*ours, *theirs], key=lambda access: access.at_s)
    return [access._replace(phase=int(access.at_s // EPOCH_S)) for access in merged]


ZIPF, SCAN = 0, 1
"""Phases of `zipf_and_scan`; the warm-up has them plus 2."""
WARMING = 2


def zipf_and_scan(
    shards: list[Shard], length: int, seed: int, *, exponent: float = 0.9, scan: float = 0.5
) -> list[Access]:
    """Popular shards, and among them others of the same dataset that are read once and never again."""
    rng = random.Random(seed)
    weights = list(accumulate(1 / (rank + 1) ** exponent for rank in range(len(shards))))
    step_s = EPOCH_S / len(shards)
    found = []
    for number in range(length):
        warming = WARMING if number < length // 2 else 0
        if rng.random() < scan:
            each, phase = shard(shards[0].dataset, len(shards) + number), SCAN
        else:
            each, phase = shards[bisect(weights, rng.random() * weights[-1])], ZIPF
        found.append(Access(number * step_s, each, phase + warming))
    return found
