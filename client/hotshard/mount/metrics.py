"""Every metric of a mount, and how it is written. Pure.

Threads count into a `Tally` of their own, so that none waits for another; `render` adds them up.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hotshard.mount.codec import name_of

BUCKETS_S = (0.00005, 0.0001, 0.0005, 0.001, 0.01, 0.1, 1.0, 10.0)

SECONDS = "hotshard_mount_request_duration_seconds"


class About(NamedTuple):
    """What a metric is."""

    text: str
    labels: tuple[str, ...] = ()


ABOUT = {
    "hotshard_mount_requests_total": About("Requests of the kernel.", ("opcode",)),
    "hotshard_mount_errors_total": About("Requests answered with an error.", ("opcode", "errno")),
    "hotshard_mount_opens_total": About("Files opened.", ("mode",)),
    "hotshard_mount_read_bytes_total": About(
        "Bytes read through the mount's process; passthrough reads do not come by."
    ),
    SECONDS: About("Time from taking a request to its answer.", ("opcode",)),
    "hotshard_mount_in_flight": About("Requests being worked on."),
    "hotshard_mount_inodes": About("Inodes that the kernel holds."),
    "hotshard_mount_handles": About("Open files and directories."),
    "hotshard_mount_cached_files": About("Open files of the cache, kept for reuse."),
    "hotshard_mount_reader_restarts_total": About("Readers started after the first."),
    "hotshard_mount_resent_requests_total": About(
        "Requests carried out again after a reader died."
    ),
    "hotshard_mount_passthrough": About("1 while the kernel reads complete files by itself."),
    "hotshard_mount_info": About("What is mounted, always 1.", ("mode", "target", "uri")),
    "hotshard_mount_direct": About(
        "1 while the cache server is away and the origin is read instead."
    ),
    "hotshard_mount_direct_calls_total": About(
        "Questions that the origin has answered instead of the server."
    ),
}
"""Every metric, with its labels."""


_FROM_THE_START = [
    (name,) for name, about in ABOUT.items() if name.endswith("_total") and not about.labels
]
"""So that the rate over the first event is right."""


class Tally:
    """The counts of one thread."""

    __slots__ = ("counts", "spent", "times")

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {}
        """(metric, label, value, ...) -> count."""
        self.times: dict[int, list[int]] = {}
        """Opcode -> requests by bucket."""
        self.spent: dict[int, float] = {}

    def request(self, opcode: int, seconds: float) -> None:
        """One request was answered."""
        buckets = self.times.get(opcode)
        if buckets is None:
            buckets = self.times[opcode] = [0] * (len(BUCKETS_S) + 1)
            self.spent[opcode] = 0.0
        buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.spent[opcode] += seconds

    def add(self, key: tuple[str, ...], count: int = 1) -> None:
        """Count something."""
        self.counts[key] = self.counts.get(key, 0) + count


def render(tallies: Iterable[Tally], gauges: Mapping[tuple[str, ...], float]) -> str:
    """The Prometheus text."""
    counts: Counter[tuple[str, ...]] = Counter(dict.fromkeys(_FROM_THE_START, 0))
    times: dict[str, list[int]] = {}
    spent: dict[str, float] = {}
    for tally in list(tallies):
        counts.update(dict(tally.counts))
        for opcode, buckets in list(tally.times.items()):
            name = name_of(opcode)
            before = times.get(name, [0] * len(buckets))
            times[name] = [a + b for a, b in zip(before, buckets, strict=True)]
            spent[name] = spent.get(name, 0.0) + tally.spent[opcode]
    samples: dict[str, list[str]] = {}
    for name, buckets in times.items():
        counts["hotshard_mount_requests_total", "opcode", name] = sum(buckets)
    for key, value in sorted({**counts, **gauges}.items()):
        samples.setdefault(key[0], []).append(f"{key[0]}{_labels(key[1:])} {value:g}")
    for name in sorted(times):
        samples.setdefault(SECONDS, []).extend(_histogram(name, times[name], spent[name]))
    lines: list[str] = []
    for metric, rows in samples.items():
        lines += [
            f"# HELP {metric} {ABOUT[metric].text}",
            f"# TYPE {metric} {kind_of(metric)}",
            *rows,
        ]
    return "\n".join(lines) + "\n"


def _histogram(opcode: str, buckets: list[int], seconds: float) -> list[str]:
    rows, total = [], 0
    for limit, count in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
        total += count
        rows.append(f'{SECONDS}_bucket{{opcode="{opcode}",le="{limit}"}} {total}')
    rows.append(f'{SECONDS}_sum{{opcode="{opcode}"}} {seconds:.6f}')
    rows.append(f'{SECONDS}_count{{opcode="{opcode}"}} {total}')
    return rows


def kind_of(name: str) -> str:
    """The Prometheus type of a metric."""
    if name == SECONDS:
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


def _labels(pairs: tuple[str, ...]) -> str:
    if not pairs:
        return ""
    texts = [
        f'{name}="{value.translate(_ESCAPE)}"'
        for name, value in zip(pairs[::2], pairs[1::2], strict=True)
    ]
    return "{" + ",".join(texts) + "}"


_ESCAPE = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
