"""Around a request."""

import logging

import pytest

from cache_server.metrics import Metrics
from cache_server.requests import LINES_PER_S, Requests
from cache_server.scope import current_id, step
from hotshard.core.errors import NotFound


@pytest.fixture
def metrics():
    return Metrics("1")


def slow_lines(caplog):
    return [r for r in caplog.records if r.getMessage() == "slow request"]


def test_a_slow_request_says_what_it_waited_for(metrics, caplog):
    requests = Requests(metrics, slow_s=0.0)
    with requests.begin("local", "open", "00000000000000aa", uri="s3://b/x") as request:
        with step("origin", "GET"):
            pass
        assert current_id() == "00000000000000aa"
        request.failed(NotFound("gone"))
    (line,) = slow_lines(caplog)
    assert (line.method, line.uri, line.code) == ("open", "s3://b/x", "NotFound")
    assert line.origin_s >= 0
    assert line.levelno == logging.WARNING
    snapshot = metrics.snapshot()
    assert snapshot['hotshard_requests_total{code="not_found",method="open",path="local"}'] == 1


def test_a_quick_one_says_nothing(metrics, caplog):
    with Requests(metrics, slow_s=60.0).begin("local", "open"):
        pass
    assert slow_lines(caplog) == []


def test_what_was_refused_says_with_what(metrics, caplog):
    with Requests(metrics, slow_s=0.0).begin("bulk", "read") as request:
        request.refused("not_cached")
    (line,) = slow_lines(caplog)
    assert line.code == "not_cached"


def test_waiting_on_purpose_is_not_slow(metrics, caplog):
    with Requests(metrics, slow_s=0.0).begin("grpc", "WatchMembers"):
        pass
    assert slow_lines(caplog) == []


def test_when_everything_is_slow_the_log_stays_readable(metrics, caplog):
    requests = Requests(metrics, slow_s=0.0)
    for _ in range(50 * LINES_PER_S):
        with requests.begin("local", "stat"):
            pass
    assert LINES_PER_S <= len(slow_lines(caplog)) <= 10 * LINES_PER_S


def test_an_error_that_leaves_is_its_code(metrics):
    requests = Requests(metrics)
    with pytest.raises(NotFound), requests.begin("grpc", "Stat"):
        raise NotFound("gone")
    snapshot = metrics.snapshot()
    assert snapshot['hotshard_requests_total{code="not_found",method="Stat",path="grpc"}'] == 1
