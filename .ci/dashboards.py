"""Generates the Grafana dashboards of the chart, or checks that what is committed is fresh.

    python .ci/dashboards.py [--check]

A panel is a title, a unit and queries; where it stands, its id and all else that Grafana wants follows from
its place in the list.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "helm" / "hotshard" / "files" / "dashboards"
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

Query = tuple[str, str]
"""PromQL, and how its lines are called."""


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    unit: str
    queries: tuple[Query, ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    text: str = ""
    stacked: bool = False
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A heading."""

    title: str


def stat(title: str, unit: str, query: str, text: str = "", *, most: float | None = None) -> Panel:
    """One number."""
    return Panel(title, unit, ((query, ""),), "stat", 4, 4, text, most=most)


def graph(title: str, unit: str, lines: dict[str, str], **more: Any) -> Panel:
    """Lines over time: how each is called, and its query."""
    return Panel(title, unit, tuple((query, name) for name, query in lines.items()), **more)


def rate(series: str, by: str = "") -> str:
    """The sum of the rates of some series."""
    grouped = f" by ({by}) " if by else ""
    return f"sum{grouped}(rate({series}[$__rate_interval]))"


def quantile(part: float, series: str, by: str = "") -> str:
    """A quantile of a histogram."""
    grouped = f"{by}, le" if by else "le"
    return f"histogram_quantile({part}, {rate(series, grouped)})"


LOOKUPS = "hotshard_shard_lookup_bytes_total"
HITS = LOOKUPS + '{result="hit"}'
FOUND = "Bytes found on the node, of bytes asked for."
AVOIDED = "sum by (verb) (hotshard_direct_requests_total) - sum by (verb) (hotshard_origin_requests_total)"
AVOIDED_BYTES = "sum(hotshard_direct_bytes_total) - sum(hotshard_origin_received_bytes_total)"
NODE = '{instance=~"$instance"}'
FAILED = '{instance=~"$instance",code!="ok"}'
OPENS = (
    "hotshard_request_duration_seconds_bucket"
    '{instance=~"$instance",path="local",method=~"open|open_many"}'
)

OVERVIEW: tuple[Panel | Row, ...] = (
    stat("Nodes ready", "short", "sum(hotshard_ready)"),
    stat("Hit ratio", "percentunit", f"{rate(HITS)} / {rate(LOOKUPS)}", FOUND, most=1),
    stat("Cached", "bytes", "sum(hotshard_disk_used_bytes)"),
    stat("Served", "binBps", rate(LOOKUPS)),
    stat("From origins", "binBps", rate("hotshard_origin_received_bytes_total")),
    stat("Saved", "currencyUSD", "sum(hotshard_saved_usd)", "Since the nodes were started."),
    graph(
        "Bytes by source",
        "binBps",
        {"{{source}}": rate("hotshard_read_bytes_total", "source")},
        width=12,
        stacked=True,
        text="local: found on the node. peer, origin: brought there.",
    ),
    graph(
        "Hit ratio by node",
        "percentunit",
        {"{{instance}}": f"{rate(HITS, 'instance')} / {rate(LOOKUPS, 'instance')}"},
        width=12,
        most=1,
    ),
    graph(
        "Datasets",
        "bytes",
        {"{{dataset}}": "topk(20, sum by (dataset) (hotshard_dataset_bytes))"},
        kind="bargauge",
        width=12,
        height=9,
        text="What is sealed, replicas on several nodes counted each.",
    ),
    graph(
        "Read by dataset",
        "binBps",
        {"{{dataset}}": f"topk(10, {rate('hotshard_read_bytes_total', 'dataset')})"},
        width=12,
        height=9,
    ),
    Row("Cluster"),
    graph("Members", "short", {"{{state}}": "max by (state) (hotshard_members)"}),
    graph(
        "Placement: slots per node",
        "short",
        {"{{instance}}": "hotshard_slots_owned"},
        text="At most 1.10 of the mean at equal weights.",
    ),
    graph(
        "Received from members",
        "binBps",
        {
            "{{zone}}": rate("hotshard_peer_received_bytes_total", "zone"),
            "across zones": rate("hotshard_cross_zone_bytes_total"),
        },
    ),
    graph(
        "Slowest members",
        "s",
        {"{{peer}}": "topk(10, avg by (peer) (hotshard_peer_latency_seconds))"},
    ),
    graph(
        "Members left alone",
        "short",
        {"{{peer}}": "sum by (peer) (hotshard_peer_breaker_open) > 0"},
    ),
    graph(
        "Read from the origin although another owns it",
        "ops",
        {"blocks": rate("hotshard_peers_exhausted_total")},
    ),
)

NODE_PAGE: tuple[Panel | Row, ...] = (
    Row("Requests"),
    graph(
        "Requests",
        "reqps",
        {"{{path}} {{method}}": rate(f"hotshard_requests_total{NODE}", "path, method") + " > 0"},
    ),
    graph(
        "Refusals and errors",
        "reqps",
        {"{{code}}": rate(f"hotshard_requests_total{FAILED}", "code") + " > 0"},
    ),
    graph("Time to open", "s", {"half": quantile(0.5, OPENS), "99%": quantile(0.99, OPENS)}),
    Row("Disks"),
    graph("Used", "bytes", {"{{instance}} {{disk}}": f"hotshard_disk_used_bytes{NODE}"}),
    graph(
        "May hold now",
        "bytes",
        {
            "{{instance}} {{disk}}": f"hotshard_disk_limit_bytes{NODE}",
            "free {{instance}} {{disk}}": f"hotshard_disk_free_bytes{NODE}",
        },
    ),
    graph(
        "Sealed and evicted",
        "binBps",
        {
            "sealed": rate(f"hotshard_sealed_bytes_total{NODE}"),
            "evicted: {{reason}}": rate(f"hotshard_evicted_bytes_total{NODE}", "reason"),
        },
    ),
    Row("Fills and origins"),
    graph("Fills", "ops", {"{{outcome}}": rate(f"hotshard_fills_total{NODE}", "outcome")}),
    graph(
        "Fetch slots",
        "short",
        {
            "running: {{priority}}": f"sum by (priority) (hotshard_fetch_slots_running{NODE})",
            "waiting: {{priority}}": f"sum by (priority) (hotshard_fetch_slots_waiting{NODE})",
            "limit of {{origin}}": f"sum by (origin) (hotshard_origin_limit{NODE})",
        },
    ),
    graph(
        "Origin latency, 99%",
        "s",
        {
            "{{verb}} {{origin}}": quantile(
                0.99, f"hotshard_origin_request_duration_seconds_bucket{NODE}", "origin, verb"
            )
        },
    ),
    Row("Process"),
    graph(
        "Memory",
        "bytes",
        {
            "resident {{instance}}": f"process_resident_memory_bytes{NODE}",
            "budget used {{instance}}": f"hotshard_memory_used_bytes{NODE}",
            "budget {{instance}}": f"hotshard_memory_limit_bytes{NODE}",
        },
    ),
    graph("CPU", "short", {"{{instance}}": rate(f"process_cpu_seconds_total{NODE}", "instance")}),
    graph(
        "Open files and connections",
        "short",
        {
            "open files {{instance}}": f"process_open_fds{NODE}",
            "{{path}} {{instance}}": f"hotshard_connections{NODE}",
            "bulk {{instance}}": f"hotshard_bulk_connections{NODE}",
        },
    ),
)

COST: tuple[Panel | Row, ...] = (
    stat("Saved", "currencyUSD", "sum(hotshard_saved_usd)", "Since the start; a lower bound."),
    stat("Without a cache", "currencyUSD", "sum(hotshard_direct_usd_total)"),
    stat("Spent", "currencyUSD", "sum(hotshard_spent_usd_total)"),
    stat("Origin bytes avoided", "bytes", AVOIDED_BYTES),
    stat("Across zones", "bytes", "sum(hotshard_cross_zone_bytes_total)"),
    stat("Reads under a lease", "short", "sum(hotshard_lease_reuses_total)"),
    graph("Requests avoided", "short", {"{{verb}}": AVOIDED}, width=12),
    graph(
        "Money a day",
        "currencyUSD",
        {
            "without a cache": "86400 * sum(rate(hotshard_direct_usd_total[1h]))",
            "spent": "86400 * sum(rate(hotshard_spent_usd_total[1h]))",
        },
        width=12,
    ),
    graph(
        "Requests to origins",
        "reqps",
        {"{{verb}}": rate("hotshard_origin_requests_total", "verb")},
        width=12,
        stacked=True,
    ),
    graph(
        "Bytes from origins",
        "binBps",
        {"{{origin}}": rate("hotshard_origin_received_bytes_total", "origin")},
        width=12,
        stacked=True,
    ),
)

DASHBOARDS = {
    "overview": ("hotshard: overview", OVERVIEW),
    "node": ("hotshard: node", NODE_PAGE),
    "cost": ("hotshard: cost", COST),
}


def dashboard(uid: str, title: str, panels: tuple[Panel | Row, ...]) -> dict[str, Any]:
    """One dashboard, as Grafana imports it."""
    return {
        "uid": f"hotshard-{uid}",
        "title": title,
        "tags": ["hotshard"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "links": [
            {
                "type": "dashboards",
                "tags": ["hotshard"],
                "title": "hotshard",
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": _variables(uid)},
        "panels": _placed(panels),
    }


def _variables(uid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}
    ]
    if uid == "node":
        query = "label_values(hotshard_build_info, instance)"
        found.append(
            {
                "name": "instance",
                "label": "Node",
                "type": "query",
                "datasource": SOURCE,
                "query": query,
                "definition": query,
                "refresh": 2,
                "includeAll": True,
                "multi": True,
                "sort": 1,
            }
        )
    return found


def _placed(panels: tuple[Panel | Row, ...]) -> list[dict[str, Any]]:
    placed = []
    x = y = line = 0
    for number, panel in enumerate(panels, 1):
        width, height = (COLUMNS, 1) if isinstance(panel, Row) else (panel.width, panel.height)
        if x + width > COLUMNS:
            x, y, line = 0, y + line, 0
        place = {"x": x, "y": y, "w": width, "h": height}
        placed.append({"id": number, "gridPos": place, **_drawn(panel)})
        x, line = x + width, max(line, height)
    return placed


def _drawn(panel: Panel | Row) -> dict[str, Any]:
    if isinstance(panel, Row):
        return {"type": "row", "title": panel.title, "collapsed": False, "panels": []}
    custom = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"stacking": {"mode": "normal"}, "fillOpacity": 40}
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0 if panel.unit != "currencyUSD" else None,
    }
    if panel.most is not None:
        defaults["max"] = panel.most
    if panel.kind == "timeseries":
        defaults["custom"] = custom
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": panel.kind != "timeseries",
                "range": panel.kind == "timeseries",
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    orientation = "horizontal" if kind == "bargauge" else "auto"
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "orientation": orientation,
    }


def main(*, check: bool) -> int:
    """Write the files, or compare them; the exit code."""
    TARGET.mkdir(parents=True, exist_ok=True)
    stale = []
    for uid, (title, panels) in DASHBOARDS.items():
        path = TARGET / f"{uid}.json"
        text = json.dumps(dashboard(uid, title, panels), indent=1) + "\n"
        if not check:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
    for name in stale:
        print(f"dashboards: {name} is not what .ci/dashboards.py makes: run it")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
