"""Generates docs/METRICS.md from the code, or checks that what is committed is fresh.

    python .ci/metrics.py [--check]

Every metric of the server and of a mount is asked of the objects that export it: name, type, labels and
meaning cannot differ from what Prometheus sees.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

from cache_server.metrics import Metrics
from cache_server.metrics.members import MemberMetrics
from cache_server.metrics.peers import PeerMetrics
from hotshard.csi import figures
from hotshard.mount.metrics import ABOUT, kind_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "METRICS.md"

INTRODUCTION = """\
# Metrics

<!-- Made by `python .ci/metrics.py`; a test compares it with the code, both ways. Edit the code. -->

The server shows its metrics at `/metrics` of the admin port (7072), in Prometheus' text format. What is
counted has all known label values from the start, with 0: a rate over the first event is right, and a
series that is not there means a wrong name. What *is* (space, slots, members) is read at the scrape.

Units are base units and stand last in the name: `_seconds`, `_bytes`, `_usd`; counters end in `_total`,
and what has no unit is a number of things.

**Cardinality is bounded.** The label `dataset` has at most 200 values, the rest is summed up as `other`;
`origin` and `disk` are those of the configuration; `peer` is the members of the cluster, and ends when one
leaves. All other labels have fixed values. A node in a cluster of 100 shows about 1,500 series.

What to look at first, alerts and what to do about them: [RUNBOOK.md](RUNBOOK.md) and
[OPERATIONS.md](OPERATIONS.md). How the figures of money are counted:
[OPERATIONS.md](OPERATIONS.md#what-it-saves).

`process_*` are those of every Prometheus client (memory, CPU time, open files of the server).
"""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def unit(self) -> str:
        """As the name says it."""
        base = self.name.removesuffix("_total")
        return next((u for u in ("seconds", "bytes", "usd") if base.endswith(f"_{u}")), "")


def server_metrics() -> list[Described]:
    """All metrics of a server in a cluster."""
    metrics = Metrics("0", ["s3://bucket/"])
    PeerMetrics(metrics.registry)
    MemberMetrics(metrics.registry)
    return described(metrics.registry)


def described(registry: CollectorRegistry) -> list[Described]:
    """What a registry shows."""
    found = []
    for collector in registry._collector_to_names:  # noqa: SLF001 - there is no other way to the labels
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append(Described(name, family.type, tuple(labels), family.documentation))
    return sorted(found, key=lambda each: each.name)


def mount_metrics() -> list[Described]:
    """All metrics of a mount."""
    return [
        Described(name, kind_of(name), about.labels, about.text)
        for name, about in sorted(ABOUT.items())
    ]


def driver_metrics() -> list[Described]:
    """All metrics of the CSI driver itself."""
    return [
        Described(name, figures.kind_of(name), about.labels, about.text)
        for name, about in sorted(figures.ABOUT.items())
    ]


def page() -> str:
    """The whole document."""
    lines = [INTRODUCTION, "## Of the server", ""]
    lines += _table(server_metrics())
    lines += [
        "",
        "## Of a mount",
        "",
        "Written to `metrics_file`, or served on `metrics_port` of the loopback: see [MOUNT.md](MOUNT.md).",
        "",
    ]
    lines += _table(mount_metrics())
    lines += [
        "",
        "## Of the CSI driver",
        "",
        "At `/metrics` of `--admin-listen` ([CSI.md](CSI.md)), with those of its mounts added up.",
        "",
    ]
    lines += _table(driver_metrics())
    return "\n".join(lines) + "\n"


def _table(metrics: list[Described]) -> Iterator[str]:
    yield "| metric | type | unit | labels | meaning |"
    yield "|---|---|---|---|---|"
    for each in metrics:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"| `{each.name}` | {each.kind} | {each.unit} | {labels} | {each.text} |"


def main(*, check: bool) -> int:
    """Write the page, or compare it; the exit code."""
    text = page()
    if not check:
        PAGE.write_text(text)
    elif PAGE.read_text() != text:
        print("metrics: docs/METRICS.md is not what the code exports: run .ci/metrics.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
