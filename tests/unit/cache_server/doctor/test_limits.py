"""Whether a memory budget fits its limit."""

from cache_server.config import load
from cache_server.doctor import limits
from hotshard.core.findings import Verdict


def judged(monkeypatch, limit):
    monkeypatch.setattr(limits, "read_memory_limit_bytes", lambda: limit)
    config = load(None, {"HOTSHARD_MEMORY_BYTES": "1GiB"}, {"cache_dirs": ["/nvme"]})
    return limits.memory(config)


def test_a_budget_that_fits(monkeypatch):
    assert judged(monkeypatch, 4 << 30).verdict is Verdict.OK
    assert judged(monkeypatch, None).verdict is Verdict.OK


def test_a_budget_that_gets_the_server_killed(monkeypatch):
    found = judged(monkeypatch, 1 << 30)
    assert found.verdict is Verdict.WARN
    assert "memory_bytes" in found.remedy
