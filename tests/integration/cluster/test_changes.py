"""Members that restart, join and leave under load: bytes move between servers, not from the origin."""

import math
import os
import signal
import time

import pytest

from benchmarks.fleet.fleet import ORIGIN_BYTES, PEER_BYTES, eventually
from benchmarks.fleet.readers import read_all, reading
from hotshard.cli.operator import Operator
from integration.cluster.conftest import FULL, LONG, OriginWatch, fill_origin, total_bytes

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]
NODES = 8 if FULL else 3
SMALL = 2000 if FULL else 100
TAKEN = "hotshard_offers_taken_bytes_total"


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
    away_s = []
    with reading(fleet.servers, expected, pause_s=0.02) as load:
        for server in fleet.servers:
            began = time.monotonic()
            before -= terminate(fleet, server)
            server.start()
            away_s.append(time.monotonic() - began)
        during = fleet.origin_bytes() - before
    assert load.problems() == []
    print(
        f"rolling restart of {NODES}: origin {during / total:.4f} of {total >> 20} MiB, p99"
        f" {load.p99_s() * 1e3:.0f} ms, longest {load.longest_s():.2f} s, {len(load.reads)} reads; the"
        f" servers were away for {min(away_s):.1f} to {max(away_s):.1f} s"
    )
    assert during <= 0.02 * total


def once_in_their_time(watch, objects):
    """HEADs that there may be: an owner keeps a description for half a minute, whoever owns it then."""
    return len(objects) * (1 + len(watch.seconds) / 30)


def owned(servers, expected):
    """What each of these owns of some objects, by the name of the server."""
    ids = {server.cluster()["me"]["id"]: server.name for server in servers}
    found: dict[str, dict[str, str]] = {server.name: {} for server in servers}
    with Operator(servers[0].grpc) as operator:
        for uri in expected:
            first = operator.explain(uri).shards[0].owners[0]
            if first in ids:
                found[ids[first]][uri] = expected[uri]
    return found


@LONG
def test_members_that_join_move_their_share_between_servers_and_leave_the_origin_alone(start_fleet):
    start, more = (8, 2) if FULL else (3, 1)
    fleet = start_fleet(start, spares=more, cluster={"grace_s": 5}, shutdown_grace_s=20)
    expected = fill_origin(fleet, small=SMALL)
    with OriginWatch(fleet) as cold:
        read_by_owners(fleet, expected)
    total, before = total_bytes(fleet), fleet.origin_bytes()
    old, peers = list(fleet.servers), fleet.total(PEER_BYTES)

    added = fleet.join(more)
    slots = int(added[0].cluster()["slots"])
    share = sum(int(server.cluster()["slots_owned"]) for server in added) / slots
    ideal = more / (start + more)
    assert fleet.total(PEER_BYTES) == peers  # nothing moves before somebody asks for it
    theirs = owned(added, expected)
    with OriginWatch(fleet) as growing:
        for server in added:
            assert read_all([server], theirs[server.name]).problems() == []
        moved = (fleet.total(PEER_BYTES) - peers) / total
        with reading(old, expected) as load:
            assert read_all(added, expected).problems() == []
    assert load.problems() == []
    out = fleet.origin_bytes() - before
    print(
        f"{start} to {start + more}: {share:.3f} of the slots and {moved:.3f} of the bytes moved"
        f" (ideal {ideal:.3f}), origin {out / total:.4f}; {growing.reads} GETs, requests"
        f" to it per second at most {growing.peak} ({growing.descriptions} HEADs in"
        f" {len(growing.seconds)} s), cold {cold.peak}; p99 {load.p99_s() * 1e3:.0f} ms"
    )
    assert share == pytest.approx(ideal, rel=0.1)
    mine = sum(len(part) for part in theirs.values()) / len(expected)
    assert moved == pytest.approx(mine, rel=0.01)
    # Objects fall into slots by chance: three standard deviations of that many.
    assert mine == pytest.approx(share, rel=3 * math.sqrt((1 - share) / (share * len(expected))))
    assert out == growing.reads == 0
    assert growing.descriptions <= once_in_their_time(growing, expected)

    # What they have seen while they were so many, only its owners have.
    late = fill_origin(fleet, small=SMALL // 2, directory="late/")
    for name, part in owned(fleet.servers, late).items():
        assert read_all([s for s in fleet.servers if s.name == name], part).problems() == []
    late_bytes, before = total_bytes(fleet) - total, fleet.origin_bytes()
    leaving, taken = 0, 0.0
    with OriginWatch(fleet) as shrinking, reading(old, expected) as load:
        for server in added:
            leaving += len(owned([server], late)[server.name])
            taken += server.total(TAKEN)
            before -= terminate(fleet, server)
        taken = (taken + fleet.total(TAKEN)) / late_bytes
        fleet.servers = old
        fleet.agree(old, ready=start)  # after the grace time its slots have moved
        assert read_all(old, {**expected, **late}).problems() == []
    assert load.problems() == []
    back = fleet.origin_bytes() - before
    print(
        f"{start + more} to {start}: {taken:.3f} of the bytes taken over (owned by who left"
        f" {leaving / len(late):.3f}), origin {back / total:.4f}; {shrinking.reads} GETs, requests to it"
        f" per second at most {shrinking.peak} ({shrinking.descriptions} HEADs in"
        f" {len(shrinking.seconds)} s); p99 {load.p99_s() * 1e3:.0f} ms, longest"
        f" {load.longest_s():.2f} s"
    )
    assert taken == pytest.approx(leaving / len(late), rel=0.01)
    assert back == shrinking.reads == 0
    assert shrinking.descriptions <= once_in_their_time(shrinking, {**expected, **late})
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
    taken = sum(server.total(TAKEN) for server in others)
    assert held == total_bytes(fleet)
    assert taken == own > 0
    fleet.servers = others
    fleet.agree(others, ready=2)
    assert read_all(others, expected).problems() == []
    assert {server.name: server.total(ORIGIN_BYTES) for server in others} == received
