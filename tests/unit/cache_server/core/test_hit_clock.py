"""The clock whose hand is moved by hits."""

import gc
import random
import sys
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.hit_clock import FIRST_USES, ROUND_HITS, USES_MAX, HitClock


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


def clock_of(count: int, size: int = 10) -> HitClock:
    clock = HitClock()
    for number in range(count):
        clock.add(digest(number), size)
    return clock


@given(st.integers(1, 40), st.integers(0, 39), st.randoms(use_true_random=False))
def test_once_per_epoch_in_any_order_nothing_becomes_stale(count, late, rng):
    """Also when the clock is filled in the middle of an epoch, and whatever the orders are."""
    clock = HitClock()
    order = list(range(count))
    rng.shuffle(order)
    for number in order[late:]:
        clock.add(digest(number), 10)
    for _ in range(8):
        rng.shuffle(order)
        for number in order:
            if digest(number) in clock:
                clock.hit(digest(number))
            else:
                clock.add(digest(number), 10)
            assert clock.stale_bytes == 0


def test_the_worst_orders_for_one_entry_leave_it_in_use():
    """Used first in one epoch and last in the next: the longest times without a use."""
    clock = clock_of(50)
    rest = list(range(1, 50))
    for _ in range(20):
        for number in [0, *rest, *rest, 0]:
            clock.hit(digest(number))
            assert clock.stale_bytes == 0


def test_what_is_not_used_while_the_rest_is_becomes_stale():
    clock = clock_of(10)
    hits = 0
    while clock.stale_bytes < 50:
        clock.hit(digest(hits % 5))
        hits += 1
    assert hits <= ROUND_HITS * 10 * (FIRST_USES + 1)
    assert clock.take_stale(1 << 40) == [digest(number) for number in range(5, 10)]
    assert (len(clock), clock.bytes, clock.stale_bytes) == (5, 50, 0)


def test_a_use_takes_an_entry_back():
    clock = clock_of(3)
    for _ in range(2 * FIRST_USES + 1):
        for _ in range(3):
            clock.age()
    assert clock.stale_bytes == 30
    clock.hit(digest(1))
    assert clock.stale_bytes == 20
    assert clock.take_stale(30) == [digest(0), digest(2)]
    assert digest(1) in clock


def test_taking_prefers_what_is_stale_and_then_what_is_used_least():
    clock = clock_of(4)
    for number in (0, 1, 1, 1):
        clock.hit(digest(number))
    assert clock.take(25) == [digest(2), digest(3), digest(0)]
    assert clock.take(1 << 40) == [digest(1)]
    assert clock.take(1) == []


class Plain:
    """The same rules with lists, as slow as they are simple."""

    def __init__(self) -> None:
        self.ring: deque[list[int]] = deque()  # [number, uses]
        self.stale: list[int] = []
        self.hits = 0

    def add(self, number):
        self.ring.append([number, FIRST_USES])

    def remove(self, number):
        self.ring = deque(place for place in self.ring if place[0] != number)
        self.stale = [each for each in self.stale if each != number]

    def hit(self, number):
        if number in self.stale:
            self.stale.remove(number)
            self.ring.append([number, 1])
        else:
            place = next(place for place in self.ring if place[0] == number)
            place[1] = min(USES_MAX, place[1] + 1)
        self.hits += 1
        if self.hits % ROUND_HITS == 0:
            self.visit(1)

    def visit(self, uses):
        if self.ring:
            number, left = self.ring.popleft()
            if left:
                self.ring.append([number, max(0, left - uses)])
            else:
                self.stale.append(number)


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "hit", "hit", "hit", "remove", "age", "take"]),
                  st.integers(0, 1 << 16)),
        max_size=300,
    )
)  # fmt: skip
def test_it_is_the_plain_clock(steps):
    clock, plain, added = HitClock(), Plain(), 0
    there: list[int] = []
    for name, number in steps:
        chosen = there[number % len(there)] if there else None
        if name == "add":
            clock.add(digest(added), 10)
            plain.add(added)
            there.append(added)
            added += 1
        elif name == "age":
            clock.age()
            plain.visit(USES_MAX)
        elif name == "take":
            taken = plain.stale[:2]
            assert clock.take_stale(20) == [digest(each) for each in taken]
            for each in taken:
                plain.remove(each)
                there.remove(each)
        elif chosen is not None and name == "hit":
            clock.hit(digest(chosen))
            plain.hit(chosen)
        elif chosen is not None:
            assert clock.remove(digest(chosen)) == 10
            plain.remove(chosen)
            there.remove(chosen)
        assert clock.stale_bytes == 10 * len(plain.stale)
        assert (len(clock), clock.bytes) == (len(there), 10 * len(there))


def test_rings_stay_bounded():
    clock = clock_of(50)
    rng = random.Random(1)
    for _ in range(20_000):
        number = digest(rng.randrange(50))
        clock.remove(number)
        clock.add(number, 1)
        clock.hit(number)
    assert len(clock) == clock.bytes == 50
    assert len(clock._ring) + len(clock._stale) <= 2 * 50 + 64 + 1


def test_memory_per_entry():
    clock = clock_of(100_000, size=102_400)
    own = sys.getsizeof(clock._entries) + sys.getsizeof(clock._ring._bytes)
    ints = sum(map(sys.getsizeof, clock._entries.values()))
    assert not gc.is_tracked(clock._entries)
    assert (own + ints) / 100_000 < 130
