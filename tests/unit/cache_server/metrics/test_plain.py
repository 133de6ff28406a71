"""Plain numbers become the very text that Prometheus' own counters and histograms would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from cache_server.metrics.plain import Counts, Durations, Levels

disable_created_metrics()  # as cache_server.metrics does

STOPS_S = (0.005, 0.25, 1.0, 60.0)
SERIES = (("a", "x"), ("a", "y"), ("b", "x"))
series = st.sampled_from(SERIES)
seconds = st.floats(0, 100) | st.sampled_from(STOPS_S)


@given(st.lists(st.tuples(series, st.integers(0, 1 << 40))))
def test_counts_as_a_counter_does(changes):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counts = Counts(ours, "moved_bytes", "Moved.", ("from", "to"), SERIES)
    counter = Counter("hotshard_moved_bytes", "Moved.", ("from", "to"), registry=theirs)
    for each in SERIES:
        counter.labels(*each)
    for each, size in changes:
        counts.of[each] += size
        counter.labels(*each).inc(size)
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.lists(st.tuples(series, seconds | st.none())))
def test_series_come_and_go_as_those_of_a_gauge_do(changes):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    levels = Levels(ours, "latency_seconds", "Latency.", ("from", "to"), ())
    gauge = Gauge("hotshard_latency_seconds", "Latency.", ("from", "to"), registry=theirs)
    for each, value in changes:
        if value is not None:
            levels.of[each] = value
            gauge.labels(*each).set(value)
        elif levels.of.pop(each, None) is not None:
            gauge.remove(*each)
    assert generate_latest(ours) == generate_latest(theirs)


@given(st.lists(st.tuples(series, seconds)))
def test_observes_as_a_histogram_does(observed):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = Durations(ours, "wait_seconds", "Waited.", STOPS_S, ("from", "to"), SERIES)
    histogram = Histogram(
        "hotshard_wait_seconds", "Waited.", ("from", "to"), registry=theirs, buckets=STOPS_S
    )
    for each in SERIES:
        histogram.labels(*each)
    for each, waited_s in observed:
        durations.observe(each, waited_s)
        histogram.labels(*each).observe(waited_s)
    assert generate_latest(ours) == generate_latest(theirs)


def test_without_labels_there_is_one_series_from_the_start():
    registry = CollectorRegistry()
    counts = Counts(registry, "sealed_shards", "Sealed.")
    durations = Durations(registry, "fill_seconds", "Filled.", STOPS_S)
    assert b"hotshard_sealed_shards_total 0.0" in generate_latest(registry)
    assert b'hotshard_fill_seconds_bucket{le="+Inf"} 0.0' in generate_latest(registry)
    counts.of[()] += 2
    durations.observe((), 0.25)
    assert b"hotshard_sealed_shards_total 2.0" in generate_latest(registry)
    assert b'hotshard_fill_seconds_bucket{le="0.25"} 1.0' in generate_latest(registry)
