"""Members that restart, join and leave under load: bytes move between servers, not from the origin."""

import os
import signal

import pytest

from benchmarks.fleet.fleet import ORIGIN_BYTES, PEER_BYTES, eventually
from benchmarks.fleet.readers import read_all, reading
from integration.cluster.conftest import FULL, LONG, fill_origin, total_bytes

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]
NODES = 8 if FULL else 3
SMALL = 2000 if FULL else 100


def read_by_owners(fleet, expected):
    """Each reads a part: owners get all of it, and the others a little."""
    uris = sorted(expected)
    for number, server in enumerate(fleet.servers):
        part = {uri: expected[uri] for uri in uris[number :: len(fleet.servers)]}
        assert read_all([server], part).problems() == []


def terminate(fleet, server):
    """SIGTERM, as Kubernetes does; gives what it had received from the origin since its start."""
    received = server.total(ORIGIN_BYTES)
    os.kill(server.pid, signal.SIGTERM)
    eventually(lambda: server.exit_code is not None)
    assert server.exit_code == 0
    return received


@LONG
def test_a_rolling_restart_under_load_hardly_touches_the_origin(start_fleet):
    fleet = start_fleet(NODES)
    expected = fill_origin(fleet, small=SMALL)
    read_by_owners(fleet, expected)
    total, before = total_bytes(fleet), fleet.origin_bytes()
    with reading(fleet.servers, expected, pause_s=0.02) as load:
        for server in fleet.servers:
            before -= terminate(fleet, server)
            server.start()
        during = fleet.origin_bytes() - before
    assert load.problems() == []
    print(
        f"rolling restart of {NODES}: origin {during / total:.4f} of {total >> 20} MiB, p99"
        f" {load.p99_s() * 1e3:.0f} ms, longest {load.longest_s():.2f} s, {len(load.reads)} reads"
    )
    assert during <= 0.02 * total


@LONG
def test_members_that_join_and_leave_move_bytes_between_servers_not_from_the_origin(start_fleet):
    start, more = (8, 2) if FULL else (3, 1)
    fleet = start_fleet(start, spares=more, cluster={"grace_s": 5})
    expected = fill_origin(fleet, small=SMALL)
    read_by_owners(fleet, expected)
    total, before = total_bytes(fleet), fleet.origin_bytes()
    old = list(fleet.servers)
    peers = fleet.total(PEER_BYTES)

    added = fleet.join(more)
    share = sum(int(server.cluster()["slots_owned"]) for server in added) / int(
        added[0].cluster()["slots"]
    )
    with reading(old, expected) as load:
        assert read_all(added, expected).problems() == []
    assert load.problems() == []
    out = fleet.origin_bytes() - before
    moved = fleet.total(PEER_BYTES) - peers
    print(
        f"{start} to {start + more}: {share:.3f} of the slots moved (ideal"
        f" {more / (start + more):.3f}), origin {out / total:.4f}, from peers {moved / total:.3f}"
    )
    assert share == pytest.approx(more / (start + more), rel=0.1)
    assert out == 0

    taken = 0
    with reading(old, expected) as load:
        for server in added:
            before -= terminate(fleet, server)
            taken = fleet.total("hotshard_offers_taken_bytes_total")
        fleet.servers = old
        fleet.agree(old, ready=start)  # after the grace time its slots have moved
    assert read_all(old, expected).problems() == []
    assert load.problems() == []
    back = fleet.origin_bytes() - before
    print(
        f"{start + more} to {start}: origin {back / total:.4f}, offered and taken {taken / total:.3f}"
    )
    assert back == 0
    assert load.longest_s() < 10


def test_what_a_leaver_alone_has_is_handed_over_before_it_exits(start_fleet):
    """SEMANTICS 14: a member that is stopped in order offers what only it has to the members that own
    it after it.
    """
    fleet = start_fleet(3, cluster={"grace_s": 1})
    expected = fill_origin(fleet, small=60)
    leaver, others = fleet.servers[0], fleet.servers[1:]
    assert read_all([leaver], expected).problems() == []
    held = fleet.total(ORIGIN_BYTES)
    received = {server.name: server.total(ORIGIN_BYTES) for server in others}
    own = terminate(fleet, leaver)
    taken = sum(server.total("hotshard_offers_taken_bytes_total") for server in others)
    assert held == total_bytes(fleet)
    assert taken == own > 0
    fleet.servers = others
    fleet.agree(others, ready=2)
    assert read_all(others, expected).problems() == []
    assert {server.name: server.total(ORIGIN_BYTES) for server in others} == received
