"""Real servers that find each other by the configuration, whoever else is in the list."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

import hotshard
from hotshard.bulkline import BulkLine
from hotshard.cli.cache_process import CacheProcess
from hotshard.cli.ports import free_ports
from hotshard.core import bulkwire as wire
from hotshard.v1 import cache_pb2, cache_pb2_grpc, types_pb2
from hotshard.wire import CLUSTER_KEY, FORWARDED_KEY
from support.waiting import LIMIT_S, until

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
OBJECT_BYTES = 300_000
SECRET = b"a secret that is long enough"


class Trio:
    """Three servers over one directory; the list of members holds more than them.

    In it are a server without a cluster, the admin port of one, a server of another cluster, one with other
    terms, one with a copy of the first one's disk, and one that claims to weigh nothing.
    """

    def __init__(self, path, stack):
        self.path = path
        data = path / "data"
        data.mkdir()
        self.objects = {}
        for i in range(12):
            body = os.urandom(OBJECT_BYTES)
            (data / f"o{i}").write_bytes(body)
            self.objects[f"file://{data}/o{i}"] = body
        self.stack = stack
        self.origins = [f"file://{data}/"]
        secret = path / "secret"
        secret.write_text(SECRET.decode())
        self.secret_file = str(secret)
        ports = [f"127.0.0.1:{port}" for port in free_ports(11)]
        self.addresses, self.bulk = ports[:8], ports[8:]
        self.weightless = serve_meetings(self.addresses[6], stack)
        self.servers = [self.made(f"n{i}", i, bulk=self.bulk[i]) for i in range(3)]
        self.stranger = self.made("alone", 3, admin=self.addresses[7])
        self.foreign = self.made("foreign", 4, name="another", bulk="127.0.0.1:0")
        self.copied = self.made("copied", 5, bulk="127.0.0.1:0")

    def made(self, directory, number, *, name="trio", bulk="", admin=""):
        """A server at an address of the list; without a bulk port it is in no cluster."""
        settings = {
            "origins": self.origins,
            "free_space_floor": "64MiB",
            "shutdown_grace_s": 5,
            "grpc": {"listen": self.addresses[number]},
        }
        if bulk:
            settings["bulk"] = {"listen": bulk, "secret_file": self.secret_file}
            settings["cluster"] = {
                "provider": "static",
                "name": name,
                "slots": 1024,
                "members": self.addresses,
            }
        if admin:
            settings["admin"] = {"listen": admin}
        server = CacheProcess(str(self.path / directory), settings)
        server.grpc, server.admin = self.addresses[number], admin or server.admin
        self.stack.callback(server.stop)
        return server

    def start(self):
        for server in (*self.servers, self.stranger):
            server.launch()
        until(lambda: all(server.ready() for server in (*self.servers, self.stranger)))

    def refused(self, reason):
        return self.total(f'hotshard_members_refused_total{{reason="{reason}"}}', 0, 1)

    def logged(self, what):
        return what in Path(self.servers[0].directory, "server.log").read_text()

    def cluster(self, number):
        return json.loads(self.servers[number].get("/status")[1])["cluster"]

    def agree(self, *numbers, **states):
        def same():
            found = [self.cluster(number) for number in numbers]
            return (
                all(each["members"] == states for each in found)
                and len({each["view_version"] for each in found}) == 1
            )

        until(same)
        return self.cluster(numbers[0])["view_version"]

    def total(self, name, *numbers):
        counters = [self.servers[n].counters() for n in numbers or (0, 1, 2)]
        return sum(v for each in counters for k, v in each.items() if k.startswith(name))


def hotshard_command(server, *arguments):
    command = [sys.executable, "-m", "hotshard.cli", "--address", server.address]
    options = ["--grpc-address", server.grpc]
    done = subprocess.run(
        [*command, *options, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


class Weightless(cache_pb2_grpc.CacheServicer):
    """Speaks the protocol and belongs to the cluster, but for its weight."""

    __abstractmethods__: frozenset[str] = frozenset()

    def Meet(self, request, context):
        me = request.me
        me.id, me.weight, me.instance = "0" * 32, 0, 1
        return cache_pb2.MeetReply(terms=request.terms, me=me)


def serve_meetings(address, stack):
    server = grpc.server(ThreadPoolExecutor(2))
    kind: Any = Weightless
    cache_pb2_grpc.add_CacheServicer_to_server(kind(), server)
    assert server.add_insecure_port(address)
    server.start()
    stack.callback(server.stop, 0)
    return server


def asked_with(address, secret, uri):
    """The reply of a bulk port to a request with a ticket made from a secret."""
    host, port = address.split(":")
    request = wire.Request(cluster=wire.cluster_id("trio"), uri=uri, length=5)
    request = wire.signed(request, secret, int(time.time()) + 60)
    line = BulkLine(host, int(port), connect_s=LIMIT_S)
    try:
        return line.exchange(request, LIMIT_S)
    finally:
        line.close()


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
    until(lambda: trio.total('hotshard_meetings_total{outcome="stranger"}', 0) > 0, "a stranger")

    # A restart: announced, no slots move, nothing is read from the origin again.
    leaver = trio.servers[2]
    os.kill(leaver.pid, signal.SIGTERM)
    until(lambda: trio.cluster(0)["members"].get("ready") == 2)
    leaver.stop()
    assert trio.agree(0, 1, ready=2, lost=1) == version
    for uri, body in trio.objects.items():
        with hotshard.connect(trio.servers[0].address) as cache:
            assert cache.read(uri) == body
    leaver.start()
    assert trio.agree(0, 1, 2, ready=3) == version
    assert trio.total("hotshard_origin_received_bytes_total", 0, 1) <= unique


def test_who_is_no_member_is_refused_and_counted_and_the_cluster_goes_on(trio):
    version = trio.agree(0, 1, 2, ready=3)
    shutil.copytree(trio.servers[0].cache_dir, trio.copied.cache_dir)
    trio.foreign.launch()
    trio.copied.launch()
    reasons = ("other_terms", "duplicate_id", "bad_weight")
    until(lambda: all(trio.refused(reason) >= 2 for reason in reasons))
    for line in (
        "its cluster is 'another', ours 'trio'",
        "a copied disk?",
        "weight 0 of",
        f"no member: {trio.addresses[7]} answers, but is no gRPC server",
    ):
        until(partial(trio.logged, line), line)
    until(lambda: trio.total('hotshard_meetings_total{outcome="stranger"}', 0) > 0, "a stranger")

    uri, body = next(iter(trio.objects.items()))
    forged = asked_with(trio.bulk[0], b"a secret that was guessed", uri)
    assert forged.status is wire.Status.FORGED
    assert "not one of this cluster" in forged.text
    assert trio.total('hotshard_bulk_requests_total{outcome="forged"}', 0) == 1
    with grpc.insecure_channel(trio.servers[0].grpc) as channel:
        stub: Any = cache_pb2_grpc.CacheStub(channel)
        metadata = ((FORWARDED_KEY, "1"), (CLUSTER_KEY, "another"))
        with pytest.raises(grpc.RpcError, match="a member of cluster 'trio', not of yours"):
            stub.Stat(types_pb2.StatRequest(uri=uri), metadata=metadata)
    invalid = 'hotshard_requests_total{code="invalid",method="Stat",path="grpc"}'
    assert trio.total(invalid, 0) == 1
    for server in trio.servers:
        with hotshard.connect(server.address) as cache:
            assert cache.read(uri) == body
    assert trio.agree(0, 1, 2, ready=3) == version


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

    gone = trio.cluster(2)["me"]["id"]
    trio.servers[2].kill()
    document = json.loads(hotshard_command(trio.servers[0], "status", "--json"))["cluster"]
    assert sorted(m["reachable"] for m in document["members"]) == [False, True, True]
    until(lambda: trio.cluster(0)["members"] == {"ready": 2, "lost": 1})
    said = (hotshard_command(trio.servers[0], "explain", uri) for uri in trio.objects)
    assert any(f"{gone[:8]} (lost)" in text for text in said)
    assert "no cluster" in hotshard_command(trio.stranger, "members")
