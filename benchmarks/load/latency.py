"""Latencies as HDR histograms: nanoseconds, three significant digits, up to an hour."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

from hdrh.histogram import HdrHistogram

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
_HIGHEST_NS = 3600 * 10**9


def encode(latencies_ns: "array[int]") -> str:
    """The histogram of single latencies, as text."""
    histogram = _empty()
    for value, times in Counter(latencies_ns).items():
        histogram.record_value(max(1, min(value, _HIGHEST_NS)), times)
    return _text(histogram)


def merged(encoded: Iterable[str]) -> str:
    """One histogram of several."""
    histogram = _empty()
    for each in encoded:
        histogram.decode_and_add(each)
    return _text(histogram)


def percentiles_ns(encoded: str, percents: Sequence[float] = PERCENTILES) -> dict[float, int]:
    """The latency that so many percent of the calls stayed under."""
    histogram = HdrHistogram.decode(encoded)
    return {percent: histogram.get_value_at_percentile(percent) for percent in percents}


def cdf(encoded: str) -> list[tuple[int, float]]:
    """(latency in ns, percentile) pairs, ascending: the curve to draw."""
    histogram = HdrHistogram.decode(encoded)
    steps = histogram.get_percentile_iterator(5)
    return [(item.value_iterated_to, item.percentile_level_iterated_to) for item in steps]


def _empty() -> HdrHistogram:
    return HdrHistogram(1, _HIGHEST_NS, 3)


def _text(histogram: HdrHistogram) -> str:
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")
