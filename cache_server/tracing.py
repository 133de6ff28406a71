"""OpenTelemetry traces of requests across nodes, for those who install `hotshard[otel]` and ask for them.

The id of a request is the lower half of its trace's id, and the id of its first span. It travels anyway
(local socket, gRPC metadata, head of a bulk request), so that the spans of all nodes meet in one trace
without a byte more on the wire, and all nodes agree on whether a request is one of the sampled ones.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from cache_server.scope import Tracer
from hotshard.core.errors import ConfigError

CLOSE_S = 2.0
EXPORT_S = 5.0
_first_span: ContextVar[int] = ContextVar("first_span", default=0)


def open_tracer(endpoint: str, sample: float, node_id: str, exporter: Any = None) -> "OtelTracer":
    """A tracer that sends its spans to an OTLP/HTTP endpoint in batches, from a thread.

    Args:
        endpoint: `http://host:4318/v1/traces`.
        sample: the part of the requests that is traced, 0 to 1.
        node_id: of this node.
        exporter: instead of the one for the endpoint.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)
    except ImportError as error:
        problem = f"tracing.endpoint: {error.name} is missing; pip install 'hotshard[otel]'"
        raise ConfigError([problem]) from error
    provider = TracerProvider(
        sampler=TraceIdRatioBased(sample),
        resource=Resource.create({"service.name": "hotshard", "service.instance.id": node_id}),
        id_generator=cast("Any", _RequestIds(RandomIdGenerator())),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OtelTracer(provider)


class OtelTracer(Tracer):
    """Makes spans."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("hotshard")

    @contextmanager
    def root(self, name: str, request_id: str, *, passed_on: bool) -> Iterator[None]:
        """The span of a request, or of the part of it that was passed on to this node."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        number = int(request_id, 16)
        context = Context()
        if passed_on:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            parent = trace.SpanContext(number, number, is_remote=True, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        token = _first_span.set(0 if passed_on else number)
        kind = trace.SpanKind.SERVER
        try:
            with self._tracer.start_as_current_span(name, context, kind=kind):
                yield
        finally:
            _first_span.reset(token)

    @contextmanager
    def child(self, name: str, attributes: dict[str, str]) -> Iterator[None]:
        """A part of what is going on now."""
        from opentelemetry import trace

        kind = trace.SpanKind.CLIENT
        with self._tracer.start_as_current_span(name, kind=kind, attributes=attributes):
            yield

    def close(self) -> None:
        """Send what is left; blocking, but not for long: a collector that is away does not hold us up."""
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(CLOSE_S)


class _RequestIds:
    """The first span of a request has the request's id, and so has its trace."""

    def __init__(self, others: Any) -> None:
        self._others = others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._others, name)

    def generate_span_id(self) -> int:
        """For a span that begins."""
        first = _first_span.get()
        _first_span.set(0)
        return first or int(self._others.generate_span_id())

    def generate_trace_id(self) -> int:
        """For a span without a parent."""
        return _first_span.get() or int(self._others.generate_trace_id())
