"""What happens is counted under names that Prometheus understands."""

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cache_server.metrics import Metrics, State
from cache_server.metrics.events import CODES, METHODS
from hotshard.core.errors import NotFound, Overloaded


@pytest.fixture
def metrics():
    ticks = iter(range(1000))
    return Metrics("1.2", ["s3://bucket/"], clock=lambda: float(next(ticks)))


def families(metrics):
    return list(text_string_to_metric_families(metrics.exposition().decode()))


def test_names_follow_the_conventions(metrics):
    for family in families(metrics):
        if family.name.startswith("process_"):
            continue
        assert re.fullmatch(r"hotshard_[a-z_]+", family.name)
        assert family.type in {"counter", "gauge", "histogram"}
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|kb|mb|percent|created|total)$", family.name), family.name
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            if family.type == "counter":
                assert sample.name.endswith("_total")


def test_every_known_series_is_there_from_the_start(metrics):
    snapshot = metrics.snapshot()
    for path, methods in METHODS.items():
        for method in methods:
            for code in CODES:
                name = f'hotshard_requests_total{{code="{code}",method="{method}",path="{path}"}}'
                assert snapshot[name] == 0.0
    assert snapshot['hotshard_shard_lookups_total{result="miss"}'] == 0.0
    assert (
        snapshot['hotshard_origin_requests_total{origin="s3://bucket/",outcome="retry",verb="GET"}']
        == 0
    )
    assert snapshot['hotshard_fetch_slots_waiting{priority="demand"}'] == 0.0
    assert snapshot["hotshard_memory_limit_bytes"] == 0.0


def test_using_every_method_adds_no_series_that_was_not_there(metrics):
    before = set(metrics.snapshot())
    record_everything(metrics)
    assert set(metrics.snapshot()) == before


def record_everything(metrics):
    metrics.request_done("grpc", "Read", "ok", 0.1)
    metrics.sent("grpc", 10)
    metrics.connections("local", 3)
    metrics.bad_message("local")
    metrics.shard_lookup("hit", 7)
    metrics.fill("sealed", 0.5)
    metrics.fill("dropped", 0.25)
    metrics.origin_request("s3://bucket/", "GET", "ok", 0.2, 100)
    metrics.sealed(50)
    metrics.evicted("space", 2, 20)
    metrics.quarantined("open", 5)


def test_what_is_recorded_is_shown(metrics):
    before = metrics.snapshot()
    record_everything(metrics)
    after = metrics.snapshot()
    changed = {name: after[name] for name in after if after[name] != before[name]}
    assert changed == {
        'hotshard_requests_total{code="ok",method="Read",path="grpc"}': 1,
        'hotshard_request_duration_seconds_count{method="Read",path="grpc"}': 1,
        'hotshard_request_duration_seconds_sum{method="Read",path="grpc"}': 0.1,
        'hotshard_sent_bytes_total{path="grpc"}': 10,
        'hotshard_connections{path="local"}': 3,
        'hotshard_bad_messages_total{path="local"}': 1,
        'hotshard_shard_lookups_total{result="hit"}': 1,
        'hotshard_shard_lookup_bytes_total{result="hit"}': 7,
        'hotshard_fills_total{outcome="sealed"}': 1,
        'hotshard_fills_total{outcome="dropped"}': 1,
        "hotshard_fill_duration_seconds_count": 2,
        "hotshard_fill_duration_seconds_sum": 0.75,
        'hotshard_origin_requests_total{origin="s3://bucket/",outcome="ok",verb="GET"}': 1,
        'hotshard_origin_request_duration_seconds_count{origin="s3://bucket/",verb="GET"}': 1,
        'hotshard_origin_request_duration_seconds_sum{origin="s3://bucket/",verb="GET"}': 0.2,
        'hotshard_origin_received_bytes_total{origin="s3://bucket/"}': 100,
        "hotshard_sealed_shards_total": 1,
        "hotshard_sealed_bytes_total": 50,
        'hotshard_evicted_shards_total{reason="space"}': 2,
        'hotshard_evicted_bytes_total{reason="space"}': 20,
        'hotshard_quarantined_shards_total{check="open"}': 1,
        'hotshard_quarantined_bytes_total{check="open"}': 5,
    }


def requests(metrics):
    found = {}
    for name, value in metrics.snapshot().items():
        match = re.match(r'hotshard_requests_total\{code="(\w+)",method="(\w+)"', name)
        if match and value:
            found[match[2], match[1]] = value
    return found


def test_a_request_is_timed_and_its_error_gives_the_code(metrics):
    with metrics.request("local", "stat"):
        pass
    with pytest.raises(NotFound), metrics.request("local", "open"):
        raise NotFound("gone")
    with pytest.raises(RuntimeError), metrics.request("local", "list"):
        raise RuntimeError
    with pytest.raises(asyncio.CancelledError), metrics.request("local", "hello"):
        raise asyncio.CancelledError
    with metrics.request("local", "status") as request:
        request.failed(Overloaded("full"))
    assert requests(metrics) == {
        ("stat", "ok"): 1,
        ("open", "not_found"): 1,
        ("list", "internal"): 1,
        ("hello", "cancelled"): 1,
        ("status", "overloaded"): 1,
    }
    seconds = metrics.snapshot()[
        'hotshard_request_duration_seconds_sum{method="stat",path="local"}'
    ]
    assert seconds == 1.0


def test_two_servers_in_one_process_do_not_meet(metrics):
    other = Metrics("1.2")
    other.sealed(1)
    assert metrics.snapshot()["hotshard_sealed_shards_total"] == 0


def test_state_is_read_when_it_is_refreshed(metrics):
    states = iter([State(warm_jobs=1), State(warm_jobs=2)])
    metrics.watch(lambda: next(states))
    assert b"hotshard_warm_jobs 0.0" in metrics.exposition()
    metrics.refresh()
    assert b"hotshard_warm_jobs 1.0" in metrics.exposition()
    assert metrics.snapshot()["hotshard_warm_jobs"] == 2


def test_build_and_process_are_shown(metrics):
    names = {family.name for family in families(metrics)}
    assert "process_resident_memory" in names or "process_resident_memory_bytes" in names
    assert 'hotshard_build_info{python="' in metrics.exposition().decode()
