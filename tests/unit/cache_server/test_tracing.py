"""Spans of several nodes meet in one trace, without anything but the request's id on the wire."""

import sys

import pytest

from cache_server.metrics import Metrics
from cache_server.requests import Requests
from cache_server.scope import current_id, step
from cache_server.tracing import OtelTracer, open_tracer
from hotshard.core.errors import ConfigError

ID = "00000000deadbeef"


@pytest.fixture
def exporters():
    """One for each of two nodes."""
    memory = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter",
        reason="OpenTelemetry is not installed: pip install 'hotshard[otel]'",
    )
    return [memory.InMemorySpanExporter() for _ in range(2)]


def node(name, exporter, sample=1.0) -> tuple[Requests, OtelTracer]:
    tracer = open_tracer("", sample, name, exporter)
    return Requests(Metrics("1"), tracer=tracer), tracer


def finished(exporters):
    return [span for exporter in exporters for span in exporter.get_finished_spans()]


def test_one_read_across_two_nodes_is_one_trace(exporters):
    one, first_tracer = node("n1", exporters[0])
    two, second_tracer = node("n2", exporters[1])
    with one.begin("local", "open", ID), step("peer", "bulk", peer="n2"):
        asked = current_id()
    with two.begin("bulk", "read", asked, passed_on=True), step("origin", "GET", uri="s3://b/x"):
        pass
    first_tracer.close()
    second_tracer.close()
    spans = {span.name: span for span in finished(exporters)}
    assert set(spans) == {"local open", "peer bulk", "bulk read", "origin GET"}
    assert {span.context.trace_id for span in spans.values()} == {int(ID, 16)}
    assert spans["local open"].parent is None
    assert spans["local open"].context.span_id == int(ID, 16)
    assert spans["bulk read"].parent.span_id == int(ID, 16)
    assert spans["origin GET"].parent.span_id == spans["bulk read"].context.span_id
    assert spans["origin GET"].attributes["uri"] == "s3://b/x"
    assert spans["bulk read"].resource.attributes["service.instance.id"] == "n2"


def test_nodes_agree_on_the_sample(exporters):
    one, first_tracer = node("n1", exporters[0], 0.5)
    two, second_tracer = node("n2", exporters[1], 0.5)
    for i in range(200):
        request_id = f"{i * 0x9E3779B97F4A7C15 % (1 << 64) or 1:016x}"
        with one.begin("local", "open", request_id):
            pass
        with two.begin("bulk", "read", request_id, passed_on=True):
            pass
    first_tracer.close()
    second_tracer.close()
    by_name: dict[str, set[int]] = {"local open": set(), "bulk read": set()}
    for span in finished(exporters):
        by_name[span.name].add(span.context.trace_id)
    assert by_name["local open"] == by_name["bulk read"]
    assert 60 < len(by_name["local open"]) < 140


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ConfigError, match=r"pip install 'hotshard\[otel\]'"):
        open_tracer("http://127.0.0.1:4318/v1/traces", 1.0, "n")
