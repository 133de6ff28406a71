from array import array

import pytest

from benchmarks.load import latency


def test_percentiles_of_known_latencies():
    encoded = latency.encode(array("Q", range(1000, 1_001_000, 1000)))
    found = latency.percentiles_ns(encoded)
    for percent in (50.0, 90.0, 99.0, 99.9):
        assert found[percent] == pytest.approx(percent * 10_000, rel=0.01)


def test_merging_is_as_if_measured_together():
    low, high = array("Q", [1000] * 90), array("Q", [900_000] * 10)
    both = latency.merged([latency.encode(low), latency.encode(high)])
    assert latency.percentiles_ns(both) == latency.percentiles_ns(latency.encode(low + high))


def test_cdf_rises():
    points = latency.cdf(latency.encode(array("Q", range(1000, 50_000, 7))))
    assert points == sorted(points)
    assert points[-1][1] == 100.0


def test_zero_and_endless_latencies_are_clipped_not_lost():
    encoded = latency.encode(array("Q", [0, 10**15]))
    assert latency.percentiles_ns(encoded, [100.0])[100.0] == pytest.approx(3600e9, rel=0.01)
