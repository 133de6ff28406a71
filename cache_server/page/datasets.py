"""The datasets of a cluster on the status page: how large, how much of it is resident, and how it is kept.

Resident is counted once for each zone, because each zone keeps its own copy: what its members own, of what
is known of the dataset by anybody. The zone that has least is shown.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from cache_server.cluster.overview import Overview
from cache_server.page.chart import bar
from cache_server.page.markup import Html, count, element, joined, percent, size
from cache_server.page.tables import nothing, section, table

ROWS_MAX = 100
STATES = ("streaming", "caching", "idle")
"""The first one that any node says."""


@dataclass(slots=True)
class _Dataset:
    cached_bytes: int = 0
    known_bytes: int = 0
    shards: int = 0
    nodes: int = 0
    streamed_bytes: int = 0
    states: set[str] = field(default_factory=set)
    owned_bytes: Counter[str] = field(default_factory=Counter)
    """By zone."""

    def resident(self, zones: set[str]) -> float | None:
        """The part that every zone has at least; None: it is not known how large the dataset is."""
        if not self.known_bytes:
            return None
        return min(1.0, min(self.owned_bytes[zone] for zone in zones) / self.known_bytes)


def datasets(overview: Overview) -> Html:
    """What is cached, by dataset, largest first."""
    found, zones = _gathered(overview)
    ranked = sorted(found.items(), key=lambda item: item[1].cached_bytes, reverse=True)
    rows = [
        (
            element("code", name),
            size(each.known_bytes) if each.known_bytes else "",
            _resident(each.resident(zones)),
            size(each.cached_bytes),
            next((state for state in STATES if state in each.states), ""),
            size(each.streamed_bytes) if each.streamed_bytes else "",
            count(each.shards),
            each.nodes,
        )
        for name, each in ranked[:ROWS_MAX]
    ]
    heads = [
        *(("dataset", "name"), ("size", "number wide"), ("resident", ""), ("cached", "number")),
        *(("", "wide"), ("passed on", "number wide"), ("shards", "number wide")),
        ("nodes", "number wide"),
    ]
    rest = len(ranked) - len(rows)
    remark = "size: what was listed or opened; cached: with the copies of all nodes"
    if rest > 0:
        remark += f"; {rest} smaller ones are not shown"
    if not rows:
        return section("Datasets", nothing("Nothing is cached yet."))
    return section("Datasets", table(heads, rows), remark)


def _gathered(overview: Overview) -> tuple[dict[str, _Dataset], set[str]]:
    found: defaultdict[str, _Dataset] = defaultdict(_Dataset)
    zones = set()
    for node in overview.nodes:
        if node.said is None:
            continue
        zones.add(node.member.zone)
        for said in node.said.datasets:
            each = found[said.name]
            each.cached_bytes += said.bytes
            each.known_bytes = max(each.known_bytes, said.known_bytes)
            each.shards += said.shards
            each.nodes += 1
            each.streamed_bytes += said.streamed_bytes
            each.states.add(said.state)
            each.owned_bytes[node.member.zone] += said.bytes - said.replica_bytes
    return found, zones


def _resident(share: float | None) -> Html:
    return joined((percent(share), bar(share))) if share is not None else joined(("–",))  # noqa: RUF001
