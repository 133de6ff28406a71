"""Two zones over one bucket: each reads from the origin once, and no byte goes from one to the other."""

import pytest

from benchmarks.fleet.fleet import ORIGIN_BYTES, PEER_BYTES
from benchmarks.fleet.readers import read_all
from integration.cluster.conftest import FULL, fill_origin, total_bytes

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


def test_zones_never_exchange_bytes(start_fleet):
    """SEMANTICS 14: members of different zones never exchange the bytes of objects."""
    zones = {number: "ab"[number % 2] for number in range(4)}
    fleet = start_fleet(4, each={n: {"cluster": {"zone": zone}} for n, zone in zones.items()})
    expected = fill_origin(fleet, small=400 if FULL else 40, big=1, big_bytes=20 << 20)
    assert read_all(fleet.servers, expected, each=2).problems() == []
    for number, server in enumerate(fleet.servers):
        mine, other = zones[number], "b" if zones[number] == "a" else "a"
        assert server.total(PEER_BYTES, zone=mine) > 0
        assert server.total(PEER_BYTES, zone=other) == 0
    total = total_bytes(fleet)
    for zone in "ab":
        members = [s for number, s in enumerate(fleet.servers) if zones[number] == zone]
        assert sum(server.total(ORIGIN_BYTES) for server in members) == total
