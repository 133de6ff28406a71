"""What was asked for before."""

import random

from cache_server.core.doorkeeper import CAPACITY, Doorkeeper


def digests(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def test_what_was_asked_for_is_known_the_second_time():
    door = Doorkeeper(100)
    asked = digests(200)
    assert not any(door.asked(each, 100)[0] for each in asked[:20])
    assert all(door.asked(each, 100)[0] for each in asked[:20])


def test_few_are_known_by_mistake():
    door = Doorkeeper(100)
    known = [door.asked(each, 100)[0] for each in digests(100 * CAPACITY)]
    assert sum(known) / len(known) < 1 / 7


def test_a_pass_ends_when_everything_was_asked_for_twice():
    door, asked = Doorkeeper(100), digests(300)
    ends = []
    for epoch in range(6):
        random.Random(epoch).shuffle(asked)
        for number, each in enumerate(asked):
            door.pass_hits += 1
            pass_hits = door.asked(each, 100)[1]
            if pass_hits is not None:
                ends.append((epoch * 300 + number, pass_hits))
    # The first pass is silent; the next ones take two epochs each.
    assert 1 <= len(ends) <= 2
    for (before, _), (end, hits) in zip([(600, 0), *ends], ends, strict=False):
        assert 400 <= end - before <= 601
        assert 500 <= hits <= 601


def test_what_was_asked_for_in_the_pass_before_is_still_known():
    door, asked = Doorkeeper(100), digests(50)
    for each in [*asked, *asked, asked[0]]:
        door.asked(each, 100)
    assert all(door.asked(each, 100)[0] for each in asked[1:])


def test_more_than_it_can_hold_gives_no_verdict_and_is_forgotten():
    door = Doorkeeper(10)
    verdicts = [door.asked(each, 10)[1] for each in digests(20_000)]
    assert set(verdicts) == {None}


def test_memory_grows_with_the_entries_it_is_for():
    door = Doorkeeper(1000)
    for each in digests(40_000):
        door.asked(each, 1000)
    assert door.size_bytes <= 2 * 1000 * CAPACITY  # at most a byte for each, twice
    small = Doorkeeper(1)
    for each in digests(5000):
        small.asked(each, 4000)  # its dataset has grown
    assert small.size_bytes >= 4000 * CAPACITY / 2
