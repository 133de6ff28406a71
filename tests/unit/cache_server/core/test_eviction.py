"""S3-FIFO in particular."""

import gc
import random
import sys

from cache_server.core.eviction import GHOSTS_MIN, Lru, S3Fifo


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def hits(policy, requests, capacity):
    """Hit ratio of a cache of `capacity` unit-sized entries."""
    cached: set[int] = set()
    count = 0
    for number in requests:
        if number in cached:
            count += 1
            policy.touch(digest(number))
            continue
        if len(cached) == capacity:
            for victim in policy.victims(1):
                cached.discard(int.from_bytes(victim, "big"))
        policy.add(digest(number), 1)
        cached.add(number)
    return count / len(requests)


def test_a_one_time_scan_does_not_flush_the_hot_set():
    rng = random.Random(5)
    hot = [rng.randrange(80) for _ in range(20_000)]
    scan = iter(range(1_000, 100_000))
    mixed = [number for pair in zip(hot, scan, strict=False) for number in pair]
    s3_fifo = hits(S3Fifo(), mixed, 100)
    lru = hits(Lru(), mixed, 100)
    assert s3_fifo > 0.45  # of at most 0.5
    assert lru < 0.35


def test_a_ghost_that_returns_goes_to_main():
    policy = S3Fifo()
    for number in range(20):
        policy.add(digest(number), 1)
    assert policy.victims(1) == [digest(0)]
    policy.add(digest(0), 1)  # a ghost: to main
    assert policy.victims(17) == [digest(number) for number in range(1, 18)]


def test_used_once_in_small_is_not_enough():
    policy = S3Fifo()
    for number in range(10):
        policy.add(digest(number), 1)
    policy.touch(digest(0))
    policy.touch(digest(1))
    policy.touch(digest(1))
    assert policy.victims(2) == [digest(0), digest(2)]


def test_queues_and_ghosts_stay_bounded():
    policy = S3Fifo()
    for number in range(50):
        policy.add(digest(number), 1)
    for turn in range(20_000):
        number = turn % 50
        policy.remove(digest(number))
        policy.add(digest(number), 1)
        policy.touch(digest(number))
        if turn % 3 == 0:
            for victim in policy.victims(1):
                policy.add(victim, 1)
    assert len(policy) == 50
    assert len(policy._small) + len(policy._main) <= 2 * 50 + GHOSTS_MIN + 1
    assert len(policy._ghost_order) <= max(50, GHOSTS_MIN)
    assert len(policy._ghosts) <= len(policy._ghost_order)


def test_memory_per_entry():
    policy = S3Fifo()
    digests = [digest(number) for number in range(100_000)]
    for each in digests:
        policy.add(each, 102_400)
    own = sys.getsizeof(policy._entries) + sys.getsizeof(policy._small._bytes)
    ints = sum(map(sys.getsizeof, policy._entries.values()))
    assert not gc.is_tracked(policy._entries)
    assert (own + ints) / len(digests) < 130
