"""What a real server says it saves, against what a real S3 server was asked."""

import json

import pytest

import hotshard
from support.content import content
from support.waiting import until

OBJECTS = 10
SIZE = 50_000


@pytest.fixture
def priced(start_node, bucket):
    """A dollar for each request, so that money can be counted on fingers."""
    boto, name = bucket
    for i in range(OBJECTS):
        boto.put_object(Bucket=name, Key=f"set/{i}", Body=content(SIZE, seed=i))
    node = start_node(
        origins=[{"prefix": f"s3://{name}/", "immutable": True}],
        prices={
            "get_usd_per_1000": 1000,
            "head_usd_per_1000": 1000,
            "list_usd_per_1000": 1000,
            "origin_usd_per_gb": 0,
        },
    )
    return node, f"s3://{name}/set/", [f"s3://{name}/set/{i}" for i in range(OBJECTS)]


def money(node):
    return json.loads(node.get("/status")[1])["money"]


def test_the_ledger_is_true(priced):
    node, prefix, uris = priced
    with hotshard.connect(node.address) as cache:
        assert len(list(cache.list(prefix))) == OBJECTS
        assert all(len(data) == SIZE for data in cache.read_many(uris))
    cold = money(node)
    counters = node.counters()
    asked = {
        verb: sum(
            value
            for name, value in counters.items()
            if name.startswith("hotshard_origin_requests_total") and f'verb="{verb}"' in name
        )
        for verb in ("GET", "HEAD", "LIST")
    }
    assert asked["GET"] == OBJECTS
    assert cold["spent_usd"] == sum(asked.values())
    assert cold["direct_usd"] == OBJECTS + 1  # a GET for each object, and one LIST
    assert cold["saved_usd"] == cold["direct_usd"] - cold["spent_usd"] <= 0
    assert cold["avoided_bytes"] == 0

    with hotshard.connect(node.address) as cache:  # another process, which has no leases
        assert all(len(data) == SIZE for data in cache.read_many(uris))
    hot = money(node)
    assert hot["spent_usd"] == cold["spent_usd"]
    assert hot["direct_usd"] == cold["direct_usd"] + OBJECTS
    assert hot["avoided_requests"]["GET"] == OBJECTS
    assert hot["avoided_bytes"] == OBJECTS * SIZE


def test_reads_under_a_lease_count_when_the_client_reports_them(priced):
    node, _, uris = priced
    with hotshard.connect(node.address) as cache:
        cache.read(uris[0])
        before = money(node)

        def read_and_look():
            assert len(cache.read(uris[0])) == SIZE
            return money(node)["direct_usd"] >= before["direct_usd"] + 2

        until(read_and_look)  # no call is made but the client's report, once a second
        after = money(node)
    assert after["spent_usd"] == before["spent_usd"]
    assert after["avoided_bytes"] == before["avoided_bytes"]  # how many bytes is not known
    assert node.counters()["hotshard_lease_reuses_total"] >= 2
