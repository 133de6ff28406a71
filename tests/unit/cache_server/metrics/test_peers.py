"""Whatever a member may answer is counted: to count must never fail a read."""

import pytest
from prometheus_client import CollectorRegistry

from cache_server.cluster.peers import _meaning
from cache_server.metrics.peers import PATHS, PEER_OUTCOMES, PeerMetrics
from hotshard.core import bulkwire as wire
from hotshard.core.errors import code_name


def counted(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"hotshard_{name}_total", labels)


@pytest.mark.parametrize("status", set(wire.Status) - {wire.Status.OK, wire.Status.PENDING})
def test_every_refusal_has_an_outcome(status):
    failed = _meaning(wire.Reply(status=status, request_id=1, text="no"))
    outcome = getattr(failed, "outcome", "") or code_name(failed).lower()
    assert outcome in PEER_OUTCOMES


def test_every_status_and_outcome_is_counted():
    registry = CollectorRegistry()
    metrics = PeerMetrics(registry)
    for path in PATHS:
        for outcome in PEER_OUTCOMES:
            metrics.peer_request("m", path, outcome, 0.1)
            assert counted(registry, "peer_requests", path=path, outcome=outcome) == 1
    for status in wire.Status:
        metrics.bulk_served(status.name.lower(), 10, not_owned=False)
        assert counted(registry, "bulk_requests", outcome=status.name.lower()) == 1
    assert counted(registry, "bulk_sent_bytes") == 10 * len(wire.Status)
