"""The recent past of a node, for people who look at it: a few totals, sampled now and then. Bounded.

Long memory is Prometheus' business. This is what one sees on a node that nobody scrapes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

SAMPLE_PERIOD_S = 30.0
SAMPLES_MAX = 120
"""An hour."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Totals since the start of the server."""

    at_s: float
    """Since 1970."""
    hit_bytes: int = 0
    asked_bytes: int = 0
    peer_bytes: int = 0
    origin_bytes: int = 0


class History:
    """The samples of the last hour."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def add(self, sample: Sample) -> None:
        """Remember it; the oldest one goes when there is no room."""
        self._samples.append(sample)

    def until(self, now: Sample) -> Sequence[Sample]:
        """What is remembered, oldest first, and then `now`."""
        return [*self._samples, now]
