"""Members that restart, join and leave under load: bytes move between servers, not from the origin."""

import pytest

from benchmarks.fleet.fleet import ORIGIN_BYTES, PEER_BYTES
from benchmarks.fleet.readers import read_all, reading
from integration.cluster.conftest import FULL, fill_origin, total_bytes

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]
NODES = 8 if FULL else 3


def test_a_rolling_restart_under_load_hardly_touches_the_origin(start_fleet):
    fleet = start_fleet(NODES)
    expected = fill_origin(fleet, small=1000 if FULL else 100)
    assert read_all(fleet.servers, expected).problems() == []
    total, before = total_bytes(fleet), fleet.origin_bytes()
    with reading(fleet.servers, expected) as load:
        for server in fleet.servers:
            before -= server.total(ORIGIN_BYTES)
            server.stop()
            server.start()
        during = fleet.origin_bytes() - before
    assert load.problems() == []
    print(
        f"rolling restart: origin {during / total:.4f} of the data, longest {load.longest_s():.2f} s"
    )
    assert during <= 0.02 * total


def test_scaling_out_and_in_moves_bytes_between_servers_not_from_the_origin(start_fleet):
    start, more = (8, 2) if FULL else (3, 1)
    fleet = start_fleet(start, spares=more)
    expected = fill_origin(fleet, small=1000 if FULL else 120)
    uris = sorted(expected)
    for number, server in enumerate(fleet.servers):  # each reads a part: owners get all of it
        part = {uri: expected[uri] for uri in uris[number :: len(fleet.servers)]}
        assert read_all([server], part).problems() == []
    total, before = total_bytes(fleet), fleet.origin_bytes()
    added = fleet.join(more)
    assert read_all(added, expected).problems() == []
    moved = sum(server.total(PEER_BYTES) for server in added)
    print(f"out: origin {(fleet.origin_bytes() - before) / total:.4f}, moved {moved / total:.3f}")
    assert fleet.origin_bytes() == before
