"""Counters, gauges and histograms in plain numbers: cheaper to count in than Prometheus' own.

Those look a series up by its labels and lock for each change. Here one thread counts in a dict, and the
numbers become metrics when somebody scrapes. A scrape from another thread sees each number whole; of two
that change together it may see only one.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

Series = tuple[str, ...]
"""The values of a metric's labels, in their order."""
NO_LABELS: Sequence[Series] = ((),)


class _Numbers(Collector):
    _family: type[CounterMetricFamily | GaugeMetricFamily]

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        series: Iterable[Series] = NO_LABELS,
    ) -> None:
        self._about = (f"hotshard_{name}", text)
        self._labels = labels
        self.of: dict[Series, float] = dict.fromkeys(series, 0)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        family = self._family(*self._about, labels=self._labels)
        for series, value in list(self.of.items()):
            family.add_metric(series, value)
        yield family


class Counts(_Numbers):
    """One counter: `counts.of[labels] += 1`."""

    _family: type[CounterMetricFamily | GaugeMetricFamily] = CounterMetricFamily


class Levels(_Numbers):
    """One gauge: `levels.of[labels] = value`."""

    _family: type[CounterMetricFamily | GaugeMetricFamily] = GaugeMetricFamily


class Durations(Collector):
    """One histogram of seconds."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        text: str,
        buckets_s: Sequence[float],
        labels: Sequence[str] = (),
        series: Iterable[Series] = NO_LABELS,
    ) -> None:
        self._about = (f"hotshard_{name}", text)
        self._labels = labels
        self._stops = tuple(buckets_s)
        self._names = [*(str(float(stop)) for stop in buckets_s), "+Inf"]
        self._counts = {each: [0] * len(self._names) for each in series}
        self._sums = dict.fromkeys(self._counts, 0.0)
        registry.register(self)

    def observe(self, series: Series, seconds: float) -> None:
        """Something took so long."""
        self._counts[series][bisect_left(self._stops, seconds)] += 1
        self._sums[series] += seconds

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        family = HistogramMetricFamily(*self._about, labels=self._labels)
        for series, counts in self._counts.items():
            buckets = list(zip(self._names, accumulate(list(counts)), strict=True))
            family.add_metric(series, buckets, self._sums[series])
        yield family
