"""Each node shows the whole cluster: two real servers that know each other."""

import json

import pytest

import hotshard
from hotshard.cli.ports import free_ports
from support.content import content
from support.prometheus import check_metrics
from support.waiting import until


@pytest.fixture
def pair(start_node, bucket):
    boto, name = bucket
    for i in range(8):
        boto.put_object(Bucket=name, Key=f"set/{i}", Body=content(100_000, seed=i))
    ports = free_ports(4)
    grpc, bulk = [f"127.0.0.1:{p}" for p in ports[:2]], [f"127.0.0.1:{p}" for p in ports[2:]]
    nodes = [
        start_node(
            started=False,
            origins=[f"s3://{name}/"],
            grpc={"listen": grpc[i]},
            bulk={"listen": bulk[i]},
            cluster={"provider": "static", "members": grpc, "start_wait_s": 1},
        )
        for i in range(2)
    ]
    for node in nodes:
        node.launch()
    until(lambda: all(node.ready() for node in nodes))
    until(lambda: all(len(document(node)["nodes"]) == 2 for node in nodes))
    return nodes, [f"s3://{name}/set/{i}" for i in range(8)]


def document(node):
    return json.loads(node.get("/status?cluster=1")[1])


def statuses(node):
    return [entry["status"] for entry in document(node)["nodes"] if "status" in entry]


def test_one_node_shows_all_of_them_and_who_is_away(pair):
    (one, two), uris = pair
    with hotshard.connect(one.address) as cache:
        for _ in range(2):
            assert [len(data) for data in cache.read_many(uris)] == [100_000] * 8
    until(lambda: len(statuses(one)) == len(statuses(two)) == 2)
    for node in (one, two):
        found = document(node)
        assert [each["state"] for each in found["nodes"]] == ["ready", "ready"]
        assert all(each["status"]["cluster"]["slots_owned"] for each in found["nodes"])
        page = node.get("/")[1]
        assert "2 of 2 nodes ready" in page
        assert all(each["id"][:8] in page for each in found["nodes"])
    until(lambda: sum(float(s["money"]["direct_usd"]) for s in statuses(two)) > 0)
    gets = sum(s["money"]["avoided_requests"]["GET"] for s in statuses(two))
    assert gets <= 0  # eight objects were read for eight GETs: nothing is saved yet, and it says so
    check_metrics(one.get("/metrics")[1])
    two.kill()
    until(lambda: "no answer" in one.get("/")[1])
    assert one.get("/")[0] == 200
