"""Clients without a server on their node, and a real cluster: bytes come from the owners' bulk ports."""

import hashlib

import pytest

import hotshard
from integration.cluster.conftest import FULL, LONG, MIB
from support.content import content

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
BODY = content((512 if FULL else 24) * MIB + 12_345)
GRPC = "hotshard_sent_bytes_total"
BULK = "hotshard_bulk_sent_bytes_total"


def sent(fleet):
    """Payload over gRPC, and over the bulk ports."""
    return fleet.total(GRPC, path="grpc"), fleet.total(BULK)


def served(fleet):
    """Who answered on the bulk port."""
    return [s.name for s in fleet.servers if s.total("hotshard_bulk_requests_total", outcome="ok")]


async def test_bytes_come_from_the_bulk_ports_of_their_owners(start_fleet, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a secret that is long enough")
    # So many shards that each of the members owns some, whatever their ids are.
    settings = {"shard_bytes": "1MiB", "block_bytes": "1MiB", "bulk": {"secret_file": str(secret)}}
    fleet = start_fleet(3, **settings)
    uri = fleet.uri("big")
    fleet.put("big", BODY)
    buffer = bytearray(len(BODY))
    with hotshard.connect(fleet.servers[0].grpc) as cache:
        assert cache.read_into(uri, buffer) == len(BODY)
        assert buffer == BODY
        assert (
            cache.read(uri, offset=5 * MIB - 3, length=6 * MIB) == BODY[5 * MIB - 3 : 11 * MIB - 3]
        )
        with cache.open(uri) as file:
            assert hashlib.sha256(file.read()).digest() == hashlib.sha256(BODY).digest()
        small = cache.read(uri, offset=len(BODY) - 100, length=1000)
    assert small == BODY[-100:]
    async with hotshard.aio.connect(fleet.servers[1].grpc) as cache:
        assert await cache.read(uri) == BODY
    over_grpc, over_bulk = sent(fleet)
    # What is left over at the end, and short, takes no detour; the big object is asked for in parts.
    assert over_grpc == 100 + (3 * (len(BODY) % MIB) if FULL else 0)
    assert over_bulk > 3 * len(BODY)
    assert served(fleet) == ["n0", "n1", "n2"]
    assert fleet.origin_bytes() == len(BODY)


@LONG
async def test_grpc_is_the_way_when_the_bulk_ports_are_not_reached(start_fleet):
    nowhere = {n: {"bulk": {"listen": f"127.0.0.{n + 2}:7071"}} for n in range(2)}
    fleet = start_fleet(2, each=nowhere)
    uri = fleet.uri("big")
    body = BODY[: 9 * MIB]
    fleet.put("big", body)
    with hotshard.connect(fleet.servers[0].grpc) as cache:
        assert cache.read(uri) == body
    async with hotshard.aio.connect(fleet.servers[1].grpc) as cache:
        assert await cache.read(uri) == body
    assert sum(server.total(GRPC, path="grpc") for server in fleet.servers) >= 2 * len(body)


@LONG
def test_an_owner_that_dies_costs_a_remote_client_time_and_nothing_else(start_fleet):
    fleet = start_fleet(3, shard_bytes="8MiB", block_bytes="1MiB")
    uri = fleet.uri("big")
    fleet.put("big", BODY)
    with hotshard.connect(fleet.servers[0].grpc) as cache:
        assert cache.read(uri) == BODY
        fleet.servers[2].kill()
        buffer = bytearray(len(BODY))
        assert cache.read_into(uri, buffer) == len(BODY)
        assert buffer == BODY
