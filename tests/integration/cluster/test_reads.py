"""Many servers as one cache (eight in full size): right bytes from every one, and the origin read once."""

import os
import random
import socket

import pytest

from benchmarks.fleet.fleet import PEER_BYTES
from benchmarks.fleet.readers import read_all
from hotshard.cli.child import Child
from hotshard.core import bulkwire as wire
from integration.cluster.conftest import FULL, LONG, MIB, failed_requests, fill_origin, total_bytes
from support.waiting import LIMIT_S

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]


def test_every_byte_is_right_everywhere_and_read_from_the_origin_once(start_fleet):
    """SEMANTICS 14: in a healthy cluster each block is read from the origin once per zone; the other
    members get it from one that has it.
    """
    fleet = start_fleet(8 if FULL else 5)
    expected = fill_origin(
        fleet,
        small=2000 if FULL else 60,
        big=4 if FULL else 2,
        big_bytes=(512 if FULL else 20) * MIB,
    )
    load = read_all(fleet.servers, expected, each=4, copies=2 if FULL else 4)
    total = total_bytes(fleet)
    received = {server.name: server.total(PEER_BYTES) >> 20 for server in fleet.servers}
    heads = fleet.total("hotshard_origin_requests_total", verb="HEAD")
    print(
        f"origin {fleet.origin_bytes() / total:.4f} of {total >> 20} MiB, {heads} HEADs of"
        f" {len(expected)} objects; MiB from peers {received}; failed {failed_requests(fleet)}"
    )
    assert load.problems() == []
    assert fleet.origin_bytes() == total
    big = 0 if FULL else 2  # one shard of several blocks: one more HEAD, for its whole checksum
    assert heads <= 1.05 * (len(expected) + big)


def test_bad_input_on_the_bulk_port_is_refused_and_counted(start_fleet):
    fleet = start_fleet(2)
    expected = fill_origin(fleet, small=5)
    server, dice = fleet.servers[0], random.Random(5)
    for _ in range(20):
        with socket.create_connection((server.host.address, 7071)) as sock:
            sock.sendall(dice.randbytes(dice.randrange(1, 3000)))
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(LIMIT_S)
            while sock.recv(65536):
                pass
    other = wire.Request(cluster=wire.cluster_id("another"), uri=min(expected), length=5)
    with socket.create_connection((server.host.address, 7071)) as sock:
        sock.sendall(wire.encode_request(other))
        reply = sock.recv(4096)
    assert reply[5] == wire.Status.WRONG_CLUSTER
    assert b"cluster 'fleet'" in reply
    assert read_all(fleet.servers, expected).problems() == []
    assert server.total("hotshard_bulk_refused_total") >= 10
    assert server.total("hotshard_bulk_requests_total", outcome="wrong_cluster") == 1


@LONG
def test_a_member_whose_bulk_port_is_another_program(start_fleet):
    """Its bytes come in another way, and what the other program says is counted."""
    everywhere = {"bulk": {"listen": "127.0.0.9:7071"}}
    fleet = start_fleet(2, each={1: everywhere})
    expected = fill_origin(fleet, small=20)
    impostor = Child(
        [*fleet.servers[0].host.program("http.server"), "7071", "--bind", "127.0.0.9"],
        environment={**os.environ, "PYTHONUNBUFFERED": "1"},
        talks=True,
    )
    try:
        assert impostor.hear().startswith("Serving HTTP")
        assert read_all(fleet.servers[:1], expected).problems() == []
    finally:
        impostor.stop()
    assert fleet.servers[0].total("hotshard_peer_requests_total", outcome="broken", path="bulk") > 0


def test_grpc_carries_the_bytes_when_the_bulk_port_cannot_be_reached(start_fleet):
    nowhere = {"bulk": {"listen": "127.0.0.2:7071"}}  # others find nobody at theirs
    fleet = start_fleet(2, each={0: nowhere, 1: {"bulk": {"listen": "127.0.0.3:7071"}}})
    expected = fill_origin(fleet, small=20)
    assert read_all(fleet.servers, expected).problems() == []
    assert fleet.origin_bytes() == total_bytes(fleet)
    first = fleet.servers[0]
    assert first.total("hotshard_peer_requests_total", outcome="unreachable", path="bulk") > 0
    assert first.total(PEER_BYTES) > 0
