"""Real servers that find each other by the configuration, and what the command line says of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import hotshard
from hotshard.cli.cache_process import CacheProcess, free_ports

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
OBJECT_BYTES = 300_000


class Trio:
    """Three servers over one directory; the list of members holds more than them."""

    def __init__(self, path, stack):
        data = path / "data"
        data.mkdir()
        self.objects = {}
        for i in range(12):
            body = os.urandom(OBJECT_BYTES)
            (data / f"o{i}").write_bytes(body)
            self.objects[f"file://{data}/o{i}"] = body
        self.ports = free_ports(8)
        lone, admin_of_lone = self.ports[6:]
        origins = [f"file://{data}/"]
        self.servers = []
        addresses = [f"127.0.0.1:{port}" for port in (*self.ports[:3], lone, admin_of_lone)]
        for i in range(3):
            settings = {
                "origins": origins,
                "free_space_floor": "64MiB",
                "shutdown_grace_s": 5,
                "grpc": {"listen": f"127.0.0.1:{self.ports[i]}"},
                "bulk": {"listen": f"127.0.0.1:{self.ports[3 + i]}"},
                "cluster": {
                    "provider": "static",
                    "name": "trio",
                    "slots": 1024,
                    "members": addresses,
                },
            }
            server = CacheProcess(str(path / f"n{i}"), settings)
            server.grpc = f"127.0.0.1:{self.ports[i]}"
            self.servers.append(server)
            stack.callback(server.stop)
        alone = {"origins": origins, "grpc": {"listen": f"127.0.0.1:{lone}"}}
        alone["admin"] = {"listen": f"127.0.0.1:{admin_of_lone}"}
        self.stranger = CacheProcess(str(path / "alone"), alone)
        self.stranger.grpc, self.stranger.admin = addresses[3:]
        stack.callback(self.stranger.stop)

    def start(self):
        for server in (*self.servers, self.stranger):
            server.launch()
        eventually(lambda: all(server.ready() for server in (*self.servers, self.stranger)))

    def cluster(self, number):
        return json.loads(self.servers[number].get("/status")[1])["cluster"]

    def agree(self, *numbers, **states):
        def same():
            found = [self.cluster(number) for number in numbers]
            return (
                all(each["members"] == states for each in found)
                and len({each["view_version"] for each in found}) == 1
            )

        eventually(same)
        return self.cluster(numbers[0])["view_version"]

    def total(self, name, *numbers):
        counters = [self.servers[n].counters() for n in numbers or (0, 1, 2)]
        return sum(v for each in counters for k, v in each.items() if k.startswith(name))


def eventually(happens: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def hotshard_command(server, *arguments):
    command = [sys.executable, "-m", "hotshard.cli", "--address", server.address]
    options = ["--grpc-address", server.grpc]
    done = subprocess.run(
        [*command, *options, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def trio(tmp_path):
    with ExitStack() as stack:
        trio = Trio(tmp_path, stack)
        trio.start()
        yield trio


def test_three_servers_are_one_cache_whatever_else_is_in_the_list(trio):
    version = trio.agree(0, 1, 2, ready=3)
    for server in trio.servers:
        with hotshard.connect(server.address) as cache:
            for uri, body in trio.objects.items():
                assert cache.read(uri) == body
    unique = OBJECT_BYTES * len(trio.objects)
    assert trio.total("hotshard_origin_received_bytes_total") == unique
    assert trio.total("hotshard_peer_received_bytes_total") == 2 * unique
    assert trio.total('hotshard_meetings_total{outcome="stranger"}', 0) > 0

    # A restart: announced, no slots move, nothing is read from the origin again.
    leaver = trio.servers[2]
    os.kill(leaver.pid, signal.SIGTERM)
    eventually(lambda: trio.cluster(0)["members"].get("ready") == 2, limit_s=10)
    leaver.stop()
    assert trio.agree(0, 1, ready=2, lost=1) == version
    for uri, body in trio.objects.items():
        with hotshard.connect(trio.servers[0].address) as cache:
            assert cache.read(uri) == body
    leaver.start()
    assert trio.agree(0, 1, 2, ready=3) == version
    assert trio.total("hotshard_origin_received_bytes_total", 0, 1) <= unique


def test_what_the_command_line_says(trio):
    trio.agree(0, 1, 2, ready=3)
    uri, body = next(iter(trio.objects.items()))
    with hotshard.connect(trio.servers[0].address) as cache:
        assert cache.read(uri) == body
    document = json.loads(hotshard_command(trio.servers[0], "status", "--json"))["cluster"]
    assert (document["name"], document["state"]) == ("trio", "ready")
    assert [m["reachable"] for m in document["members"]] == [True] * 3
    assert sum(m["slots_owned"] for m in document["members"]) == document["slots"] == 1024
    assert sum(m["sealed_shards"] for m in document["members"]) in (1, 2)
    ids = [m["id"] for m in document["members"]]

    text = hotshard_command(trio.servers[0], "status")
    assert "cluster trio: 3 ready" in text
    assert all(id_[:8] in text for id_ in ids)
    text = hotshard_command(trio.servers[1], "members")
    assert text.count("ready") == 4  # the summary, and each member
    assert json.loads(hotshard_command(trio.servers[1], "members", "--json"))["cluster"] == "trio"

    document = json.loads(hotshard_command(trio.servers[0], "explain", "--json", uri))
    (shard,) = document["shards"]
    assert len(shard["owners"]) == 2
    assert set(shard["owners"]) <= set(ids)
    states = {shard["state"]} | {
        each["state"] for said in document["elsewhere"].values() for each in said["shards"]
    }
    assert "sealed" in states
    assert "with the owners:" in hotshard_command(trio.servers[0], "explain", uri)

    trio.servers[2].kill()
    document = json.loads(hotshard_command(trio.servers[0], "status", "--json"))["cluster"]
    assert sorted(m["reachable"] for m in document["members"]) == [False, True, True]
    assert "no cluster" in hotshard_command(trio.stranger, "members")
