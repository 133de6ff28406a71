"""Servers that die, are cut off or slow down under a read load: it costs time and nothing else."""

import time

import pytest

from benchmarks.fleet.fleet import ORIGIN_BYTES, PEER_BYTES
from benchmarks.fleet.readers import read_all, reading
from integration.cluster.conftest import FULL, LONG, failed_requests, fill_origin, total_bytes

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]
NODES = 8 if FULL else 4


def goes_on(seconds):
    """Let a load run: its phases before, during and after something are times, and no conditions."""
    time.sleep(seconds)


def told(load, since, until=float("inf")):
    """The figures of a load before, during and after something."""
    before, during, after = (
        load.p99_s(until=since),
        load.p99_s(since, until),
        load.p99_s(since=until),
    )
    return (
        f"p99 before {before * 1e3:.1f} ms, during {during * 1e3:.1f} ms, after"
        f" {after * 1e3:.1f} ms, longest {load.longest_s():.2f} s, {len(load.reads)} reads"
    )


def waits(load, since, until, servers):
    """Of the reads during something: how many took over 0.5, 1, 2, 5 s, by server."""
    found = {}
    for server in servers:
        slow = [load.slower(than_s, since, until, server.name)[0] for than_s in (0.5, 1, 2, 5)]
        found[server.name] = (*slow, load.slower(0, since, until, server.name)[1])
    return f"over 0.5, 1, 2, 5 s of all {found}"


def test_a_server_is_killed_in_the_middle_of_a_read_load(start_fleet):
    """SEMANTICS 14: a member that is killed fails no read of the others, and finds again what it had
    sealed.
    """
    fleet = start_fleet(NODES)
    expected = fill_origin(fleet, small=1000 if FULL else 150)
    victim, others = fleet.servers[-1], fleet.servers[:-1]
    mine = {uri: expected[uri] for uri in sorted(expected)[::2]}
    assert read_all([victim], mine).problems() == []  # so that it has something to lose
    with reading(others, expected, each=4 if FULL else 1) as load:
        goes_on(10 if FULL else 1)
        killed = time.monotonic()
        victim.kill()
        goes_on(15 if FULL else 2)
    assert load.problems() == []
    recovered_s = load.recovered_s(killed, max(0.05, 3 * load.p99_s(until=killed)))
    print(f"killed: {told(load, killed)}, recovered after {recovered_s:.2f} s")
    assert load.longest_s() < 10

    victim.start()  # it comes back: nothing that it had sealed is read from the origin again
    assert read_all([victim], mine).problems() == []
    assert victim.total(ORIGIN_BYTES) == 0
    assert victim.total(PEER_BYTES) == 0


@LONG
@pytest.mark.parametrize("what", ["peers", "origin"])
def test_a_server_is_cut_off(start_fleet, what):
    """SEMANTICS 14: a member that cannot reach its peers, or the origin, serves its readers all the
    same.
    """
    fleet = start_fleet(NODES, fetch={"attempts": 3, "connect_timeout_s": 1})
    expected = fill_origin(fleet, small=400 if FULL else 100)
    alone, others = fleet.servers[0], fleet.servers[1:]
    addresses = [s.host.address for s in others] if what == "peers" else [fleet.network.address]
    with reading(fleet.servers, expected, pause_s=0.02) as load:
        goes_on(2 if FULL else 0.7)
        cut = time.monotonic()
        fleet.network.cut(alone.host, addresses)
        goes_on(20 if FULL else 6)
        mended = time.monotonic()
        fleet.network.mend(alone.host, addresses)
        goes_on(2)
    assert load.problems() == []
    total = total_bytes(fleet)
    own, theirs = (fleet.origin_bytes(part) / total for part in ([alone], others))
    print(
        f"cut off from {what}: {told(load, cut, mended)}; origin to it {own:.3f}, to the others"
        f" {theirs:.3f} x unique; failed {failed_requests(fleet)};"
        f" {waits(load, cut, mended, fleet.servers)}"
    )
    # Each of the two parts reads what it lacks, and once.
    assert own <= 1.01
    assert own + theirs <= 1.01 or (what == "peers" and theirs <= 1.01)
    for server in fleet.servers:
        slow, all_of_them = load.slower(1.0, cut, mended, server.name)
        assert slow <= max(8, 0.02 * all_of_them)
    assert load.longest_s() < 15


@LONG
def test_a_peer_behind_a_bad_wire(start_fleet):
    fleet = start_fleet(NODES)
    expected = fill_origin(fleet, small=400 if FULL else 100)
    slow = fleet.servers[0]
    bad = fleet.network.worse(slow.host, delay_s=0.2, loss=0.05)
    with reading(fleet.servers[1:], expected, pause_s=0.02) as load, bad:
        began = time.monotonic()
        goes_on(30 if FULL else 8)
        ended = time.monotonic()
    assert load.problems() == []
    print(
        f"peer with 200 ms and 5% loss: {told(load, began, ended)}, origin"
        f" {fleet.origin_bytes() / total_bytes(fleet):.3f}, failed {failed_requests(fleet)};"
        f" {waits(load, began, ended, fleet.servers[1:])}"
    )
    assert load.longest_s() < 30
