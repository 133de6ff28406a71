import os

import pytest

from hotshard.mount import abi
from hotshard.mount.listing import Builder, Kind
from hotshard.mount.state import SLOTS, Arena, Incompatible, RequestSlots, State


@pytest.fixture
def state():
    made = State.create()
    yield made
    os.close(made.fd)


def acquire(slots: RequestSlots, device: int = 0) -> int:
    slot = slots.acquire(device)
    assert slot is not None
    return slot


def listing(arena: Arena, serial: int, names: int):
    builder = Builder(b"d/", 5)
    for i in range(names):
        builder.add(b"name-%08d" % i, Kind.FILE, i, i, "version")
    return arena.store(builder.pack(serial, 0))


def test_the_header(state):
    assert state.heartbeat_ns == 0
    assert state.init_reply == b""
    state.beat(123)
    state.set_init_reply(b"x" * 64)
    state.add_restart()
    state.add_resends(3)
    again = State(state.fd)
    assert (again.heartbeat_ns, again.init_reply) == (123, b"x" * 64)
    assert (again.restarts, again.resends, again.ended) == (1, 3, False)
    state.end()
    assert again.ended


def test_another_format_is_refused(state):
    os.pwrite(state.fd, b"\x63\0\0\0", 4)
    with pytest.raises(Incompatible, match="format 99"):
        State(state.fd)


def test_a_request_waits_for_the_next_process(state):
    slots = RequestSlots(state)
    answered, waiting = acquire(slots, 0), acquire(slots, 1)
    raw = abi.IN_HEADER.pack(40, 17, 2, 1, 0, 0, 1, 0, 0)
    slots.view(answered)[:40] = raw
    slots.view(waiting)[:40] = raw
    slots.clear(answered)
    after = RequestSlots(State(state.fd))
    assert after.left_over() == [(waiting, 1, raw)]
    after.release(waiting)
    assert RequestSlots(State(state.fd)).left_over() == []


def test_slots_run_out_and_come_back(state):
    slots = RequestSlots(state)
    taken = [acquire(slots) for _ in range(SLOTS)]
    assert len(set(taken)) == SLOTS
    assert slots.acquire(0) is None
    slots.release(taken[0])
    assert acquire(slots) == taken[0]
    slots.release_all()
    assert len([acquire(slots) for _ in range(SLOTS)]) == SLOTS


def test_listings_outlive_their_process(state):
    arena = Arena(state.fd)
    kept = [listing(arena, serial, 10 * serial) for serial in (1, 2, 3)]
    arena.release(kept[1])
    found = Arena(state.fd).restore()
    assert [(one.serial, len(one)) for one in found] == [(1, 10), (3, 30)]
    assert found[1].name(29) == b"name-00000029"


def test_a_restored_arena_goes_on(state):
    first = Arena(state.fd)
    listing(first, 1, 10)
    second = Arena(state.fd)
    one = second.restore()[0]
    listing(second, 2, 10)
    second.release(one)
    assert [x.serial for x in Arena(state.fd).restore()] == [2]


def test_space_is_given_back(state):
    arena = Arena(state.fd)
    for serial in range(1, 30):
        arena.release(listing(arena, serial, 40_000))
    assert os.fstat(state.fd).st_blocks * 512 < 20 << 20
    assert os.fstat(state.fd).st_size < 100 << 20


def test_a_listing_larger_than_a_segment(state):
    arena = Arena(state.fd)
    big = listing(arena, 1, 100_000)
    assert big.find(b"name-00099999") == 99_999
    assert len(Arena(state.fd).restore()[0]) == 100_000


def test_a_listing_that_was_torn_is_not_there(state):
    arena = Arena(state.fd)
    one = listing(arena, 1, 10)
    two = listing(arena, 2, 10)
    three = listing(arena, 3, 10)
    two.buffer[two.base : two.base + 4] = b"FREE"  # killed before it was shown
    found = Arena(state.fd).restore()
    assert [x.serial for x in found] == [1, 3]
    assert (len(one), len(three)) == (10, 10)
