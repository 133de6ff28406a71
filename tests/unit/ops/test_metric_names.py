"""Alerts, dashboards and the page of metrics name what exists, and only that."""

import json
import re
import subprocess
import sys
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from cache_server.metrics import Limit, Metrics, State
from cache_server.metrics.members import MemberMetrics
from cache_server.metrics.peers import PeerMetrics
from hotshard.mount.metrics import Tally, render
from support.prometheus import check_metrics, promtool
from support.promql import labels_of, parse

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "hotshard" / "files"
RULES = CHART / "rules.yaml"
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
FROM_PROMETHEUS = {"instance", "le"}
PROCESS = {
    *("process_open_fds", "process_max_fds", "process_resident_memory_bytes"),
    "process_cpu_seconds_total",
}
FREE_LABELS = {"origin", "disk", "dataset", "peer", "zone", "instance", "version", "errno"}
"""Their values come from the outside: nothing can be said about a matcher."""


def generator(name: str) -> Any:
    """A program of .ci/, which is no package."""
    path = str(ROOT / ".ci" / f"{name}.py")
    module = ModuleType(f"ci_{name}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up
    SourceFileLoader(module.__name__, path).exec_module(module)
    return module


metrics_page = generator("metrics")
KNOWN = {
    each.name: each
    for part in ("server", "mount", "driver")
    for each in getattr(metrics_page, f"{part}_metrics")()
}


def rules():
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def alerts():
    return [rule for rule in rules() if "alert" in rule]


def panels():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"], target["legendFormat"]


EXPRESSIONS = [
    *((rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()),
    *((name, expr) for name, expr, _ in panels()),
]


def full_registry():
    metrics = Metrics("1", ["s3://bucket/"])
    PeerMetrics(metrics.registry)
    MemberMetrics(metrics.registry)
    return metrics


@cache
def exposition():
    return full_registry().exposition().decode()


@cache
def values_of(label):
    """The values that a label has from the start, over all metrics of the server."""
    text = exposition()
    return set(re.findall(rf'[{{,]{label}="([^"]*)"', text))


def base_name(name):
    """The metric of a series: a histogram has three kinds."""
    for suffix in ("_bucket", "_sum", "_count"):
        base = name.removesuffix(suffix)
        if base != name and base in KNOWN and KNOWN[base].kind == "histogram":
            return base
    return name


# -- the page --------------------------------------------------------------------------------------


def test_the_page_is_what_the_code_exports():
    assert metrics_page.PAGE.read_text() == metrics_page.page(), "run: python .ci/metrics.py"


def test_every_metric_that_is_exported_is_on_the_page_and_nothing_else():
    """Against the exposition itself, not against what the page was made from."""
    text = exposition()
    exported = {
        (name, kind)
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
        if not name.startswith("process_")
    }
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", metrics_page.PAGE.read_text(), re.MULTILINE)
    others = ("hotshard_mount_", "hotshard_csi_")  # of other programs
    assert {row for row in rows if not row[0].startswith(others)} == exported


def test_promtool_finds_nothing_wrong_with_the_exposition():
    metrics = full_registry()
    metrics.watch(lambda: State(limits={"s3://bucket/": Limit(32, 0, 0)}))
    metrics.refresh()
    check_metrics(metrics.exposition().decode())


def test_promtool_finds_nothing_wrong_with_a_mount():
    tally = Tally()
    tally.request(15, 0.5)
    tally.add(("hotshard_mount_opens_total", "mode", "cached"))
    info = ("hotshard_mount_info", "mode", "passthrough", "target", "/mnt", "uri", 's3://b/"')
    check_metrics(render([tally], {("hotshard_mount_in_flight",): 1, info: 1}))


# -- expressions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "expression"), EXPRESSIONS)
def test_an_expression_names_only_series_that_exist(name, expression):
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    parsed = parse(expression)
    assert parsed.selectors
    for selector in parsed.selectors:
        if selector.name in recorded or selector.name in PROCESS:
            continue
        assert base_name(selector.name) in KNOWN, f"{name}: {selector.name} does not exist"
        labels = {*KNOWN[base_name(selector.name)].labels, *FROM_PROMETHEUS}
        for label, _, wanted in selector.matchers:
            assert label in labels, f"{name}: {selector.name} has no label {label}"
            if label not in FREE_LABELS:
                assert set(wanted.split("|")) <= values_of(label), f"{name}: {label}={wanted}"
    everything = {label for s in parsed.selectors for label in _labels(s.name)}
    assert parsed.labels <= everything | FROM_PROMETHEUS, name


def _labels(name):
    return KNOWN[base_name(name)].labels if base_name(name) in KNOWN else ()


def test_legends_and_annotations_use_labels_that_the_result_has():
    texts = [(name, expr, text) for name, expr, text in panels()] + [
        (rule["alert"], rule["expr"], text)
        for rule in alerts()
        for text in rule["annotations"].values()
    ]
    for name, expression, text in texts:
        parsed = parse(expression)
        has = parsed.labels or {
            *FROM_PROMETHEUS,
            *(label for s in parsed.selectors for label in _labels(s.name)),
        }
        assert set(labels_of(text.replace("{{ $value", "{{ "))) - {"humanize"} <= has | {
            "humanizePercentage",
            "humanizeDuration",
            "humanize1024",
        }, name


def test_the_tokenizer_sees_what_is_wrong():
    parsed = parse('sum by (zone, x) (rate(wrong_total{a="b",c=~"d|e"}[5m])) > 0.5 and other')
    assert [s.name for s in parsed.selectors] == ["wrong_total", "other"]
    assert parsed.selectors[0].matchers == (("a", "=", "b"), ("c", "=~", "d|e"))
    assert parsed.labels == {"zone", "x"}


# -- alerts ----------------------------------------------------------------------------------------


def test_every_alert_says_what_to_do_in_the_runbook_and_the_runbook_has_no_others():
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in alerts()]


def test_every_alert_is_complete():
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, rule["alert"]
        assert set(rule["annotations"]) == {"summary", "description"}, rule["alert"]


def test_promtool_accepts_the_rules():
    _run(promtool(), "check", "rules", str(RULES))


# -- dashboards ------------------------------------------------------------------------------------


def test_the_dashboards_are_what_their_generator_makes():
    assert generator("dashboards").main(check=True) == 0
    assert {path.stem for path in DASHBOARDS} == {"overview", "node", "cost"}


def test_the_queries_of_the_dashboards_are_promql(tmp_path):
    """promtool parses rules: each query is made one."""
    queries = [
        expr.replace("$__rate_interval", "5m").replace("$instance", ".*") for _, expr, _ in panels()
    ]
    recording = [{"record": f"q:{i}", "expr": expr} for i, expr in enumerate(queries)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": recording}]}))
    _run(promtool(), "check", "rules", str(path))


def test_panels_do_not_overlap():
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, f"{path.stem}: {panel['title']}"
            assert at["x"] + at["w"] <= 24
            taken |= cells


def _run(*command):
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
