"""Eight servers as one cache: right bytes from every one, and the origin read once."""

import contextlib
import random
import socket
import threading
import time

import pytest

import hotshard
from hotshard.core import bulkwire as wire
from integration.cluster.conftest import FULL, MIB, fill_origin
from integration.cluster.load import read_all, reading
from support.content import content, digest
from support.fleet import PEER_BYTES

pytestmark = [pytest.mark.timeout(1800 if FULL else 240), pytest.mark.slow]
NODES = 8 if FULL else 4


def total_bytes(fleet) -> int:
    found = fleet.boto.get_paginator("list_objects_v2").paginate(Bucket=fleet.bucket)
    return sum(entry["Size"] for page in found for entry in page.get("Contents", []))


def test_every_byte_is_right_everywhere_and_read_from_the_origin_once(start_fleet):
    fleet = start_fleet(8)
    expected = fill_origin(
        fleet,
        small=2000 if FULL else 60,
        big=4 if FULL else 2,
        big_bytes=(512 if FULL else 20) * MIB,
    )
    first = dict([next(iter(expected.items()))])
    read_all(fleet.servers, first).good()  # each has found its S3 endpoint, which takes a while
    read_all(fleet.servers, expected, each=4).good()
    total = total_bytes(fleet)
    received = fleet.counters(PEER_BYTES)
    print(f"origin {fleet.origin_bytes() / total:.4f} of {total >> 20} MiB; from peers {received}")
    assert fleet.origin_bytes() == total
    heads = sum(
        v
        for s in fleet.servers
        for k, v in s.counters().items()
        if "origin_requests" in k and "HEAD" in k
    )
    assert heads <= 1.1 * len(expected) + 8


def test_a_server_is_killed_in_the_middle_of_a_read_load(start_fleet):
    fleet = start_fleet(NODES, fetch={"attempts": 3})
    expected = fill_origin(fleet, small=1000 if FULL else 150)
    victim, others = fleet.servers[-1], fleet.servers[:-1]
    with hotshard.connect(victim.address) as cache:  # so that it has something to lose
        for uri in sorted(expected)[::2]:
            assert digest(cache.read(uri)) == expected[uri]
    with reading(others, expected) as load:
        time.sleep(10 if FULL else 2)
        killed = time.monotonic()
        victim.kill()
        time.sleep(10 if FULL else 3)
    load.good()
    before, during = load.p99_s(until=killed), load.p99_s(since=killed)
    slow = [at + took for at, took in load.reads if at > killed and took > max(0.05, 3 * before)]
    recovered = max(slow, default=killed) - killed
    print(
        f"p99 before {before * 1e3:.1f} ms, after {during * 1e3:.1f} ms, longest"
        f" {load.longest_s() * 1e3:.0f} ms, recovered after {recovered:.2f} s,"
        f" {len(load.reads)} reads"
    )
    assert load.longest_s() < 10

    victim.start()  # it comes back: nothing that it had sealed is read from the origin again
    with hotshard.connect(victim.address) as cache:
        for uri in sorted(expected)[::2]:
            assert digest(cache.read(uri)) == expected[uri]
    assert victim.total("hotshard_origin_received_bytes_total") == 0
    assert victim.total(PEER_BYTES) == 0


@pytest.mark.parametrize("what", ["peers", "origin"])
def test_a_server_is_cut_off(start_fleet, what):
    fleet = start_fleet(NODES, fetch={"attempts": 3, "connect_timeout_s": 1})
    expected = fill_origin(fleet, small=400 if FULL else 100)
    alone, others = fleet.servers[0], fleet.servers[1:]
    addresses = [s.host.address for s in others] if what == "peers" else [fleet.network.address]
    with reading(fleet.servers, expected, pause_s=0.02) as load:
        time.sleep(2 if FULL else 0.7)
        cut = time.monotonic()
        fleet.network.cut(alone.host, addresses)
        time.sleep(20 if FULL else 6)
        mended = time.monotonic()
        fleet.network.mend(alone.host, addresses)
        time.sleep(2)
    load.good()
    breakers = fleet.counters("hotshard_peer_breaker_open")
    print(
        f"cut off from {what}: p99 before {load.p99_s(until=cut) * 1e3:.0f} ms, during"
        f" {load.p99_s(cut, mended) * 1e3:.0f} ms, longest {load.longest_s():.2f} s,"
        f" {len(load.reads)} reads, origin {fleet.origin_bytes() / total_bytes(fleet):.3f},"
        f" breakers at the end {breakers}"
    )
    assert load.longest_s() < 30


def test_a_peer_behind_a_bad_wire(start_fleet):
    fleet = start_fleet(NODES)
    expected = fill_origin(fleet, small=400 if FULL else 100)
    slow = fleet.servers[0]
    with fleet.network.worse(slow.host, delay_s=0.2, loss=0.05):
        with reading(fleet.servers[1:], expected, pause_s=0.02) as load:
            time.sleep(30 if FULL else 10)
        load.good()
    print(
        f"peer with 200 ms and 5% loss: p99 {load.p99_s() * 1e3:.0f} ms, longest"
        f" {load.longest_s():.2f} s, {len(load.reads)} reads, origin"
        f" {fleet.origin_bytes() / total_bytes(fleet):.3f}"
    )
    assert load.longest_s() < 30


def test_a_rolling_restart_under_load_hardly_touches_the_origin(start_fleet):
    fleet = start_fleet(8 if FULL else NODES)
    expected = fill_origin(fleet, small=1000 if FULL else 100)
    read_all(fleet.servers, expected).good()
    total = total_bytes(fleet)
    before = fleet.origin_bytes()
    during = 0
    with reading(fleet.servers, expected) as load:
        for server in fleet.servers:
            before -= server.total("hotshard_origin_received_bytes_total")
            server.stop()
            server.start()
        during = fleet.origin_bytes() - before
    load.good()
    print(
        f"rolling restart: origin {during / total:.4f} of the data, longest {load.longest_s():.2f} s"
    )
    assert during <= 0.02 * total


def test_scaling_out_and_in_moves_bytes_between_servers_not_from_the_origin(start_fleet):
    start, more = (8, 2) if FULL else (4, 1)
    fleet = start_fleet(start)
    expected = fill_origin(fleet, small=1000 if FULL else 120)
    uris = sorted(expected)
    for number, server in enumerate(fleet.servers):  # each reads a part: owners get all of it
        part = {uri: expected[uri] for uri in uris[number :: len(fleet.servers)]}
        read_all([server], part).good()
    total, before = total_bytes(fleet), fleet.origin_bytes()
    added = fleet.grow(more)
    fleet.view()
    time.sleep(0.5)
    read_all(added, expected).good()
    moved = sum(server.total(PEER_BYTES) for server in added)
    print(f"out: origin {(fleet.origin_bytes() - before) / total:.4f}, moved {moved / total:.3f}")
    assert fleet.origin_bytes() == before
    fleet.view([server.id for server in fleet.servers[:start]])
    time.sleep(0.5)
    read_all(fleet.servers[:start], expected).good()
    print(f"in: origin {(fleet.origin_bytes() - before) / total:.4f}")
    assert fleet.origin_bytes() - before <= 0.02 * total


def test_bad_input_on_the_bulk_port_is_refused_and_counted(start_fleet):
    fleet = start_fleet(2)
    expected = fill_origin(fleet, small=5)
    server, dice = fleet.servers[0], random.Random(5)
    for _ in range(20):
        with socket.create_connection((server.host.address, 7071)) as sock:
            sock.sendall(dice.randbytes(dice.randrange(1, 3000)))
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(5)
            while sock.recv(65536):
                pass
    other = wire.Request(cluster=wire.cluster_id("another"), uri=min(expected), length=5)
    with socket.create_connection((server.host.address, 7071)) as sock:
        sock.sendall(wire.encode_request(other))
        reply = sock.recv(4096)
    assert reply[5] == wire.Status.WRONG_CLUSTER
    assert b"cluster 'test'" in reply
    read_all(fleet.servers, expected).good()
    assert server.total("hotshard_bulk_refused_total") >= 10
    assert server.counters()['hotshard_bulk_requests_total{outcome="wrong_cluster"}'] == 1


def test_a_member_whose_address_answers_something_else(start_fleet):
    """The address of one member is that of another program, on both ports."""
    fleet = start_fleet(2)
    expected = fill_origin(fleet, small=20)
    with socket.create_server((fleet.network.address, 0)) as listener:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock:
                        sock.sendall(content(3000))

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        impostor = f"{fleet.network.address}:{listener.getsockname()[1]}"
        fleet.view(lies={"n1": {"bulk": impostor, "grpc": impostor}})
        time.sleep(0.5)
        read_all(fleet.servers[:1], expected).good()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert fleet.servers[0].total('hotshard_peer_requests_total{outcome="broken"') > 0


def test_grpc_carries_the_bytes_when_the_bulk_port_cannot_be_reached(start_fleet):
    fleet = start_fleet(2)
    expected = fill_origin(fleet, small=20)
    fleet.view(lies={s.id: {"bulk": f"{s.host.address}:9"} for s in fleet.servers})
    time.sleep(0.5)
    read_all(fleet.servers, expected).good()
    assert fleet.origin_bytes() == total_bytes(fleet)
    counters = fleet.servers[0].counters()
    assert counters['hotshard_peer_requests_total{outcome="unreachable",path="bulk"}'] > 0
    assert fleet.servers[0].total(PEER_BYTES) > 0
