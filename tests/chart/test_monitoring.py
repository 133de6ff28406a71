"""Rules, dashboards and network policies of the chart."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support.chart import (
    CHART,
    VALUES,
    named,
    rendered,
)
from support.prometheus import promtool

SNAPSHOTS = Path(__file__).parent / "snapshots"
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def test_rules_are_good_prometheus_rules(tmp_path):
    objects = rendered(CHART / "ci" / "eks-pod-identity-values.yaml")
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(named(objects, "PrometheusRule")["spec"]))
    done = subprocess.run(
        [promtool(), "check", "rules", str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_made_unchanged():
    objects = rendered(CHART / "ci" / "eks-pod-identity-values.yaml")
    made = {
        name: text
        for each in objects
        if each["metadata"]["labels"].get("dashboards") == "yes"
        for name, text in each["data"].items()
    }
    files = {
        p.name: p.read_text().rstrip("\n") for p in (CHART / "files/dashboards").glob("*.json")
    }
    assert made == files
    assert files


def test_policies_let_in_who_has_to():
    objects = rendered(CHART / "ci" / "eks-pod-identity-values.yaml")
    policy = named(objects, "NetworkPolicy", "hotshard")["spec"]
    allowed = {
        port["port"]: len(rule["from"]) for rule in policy["ingress"] for port in rule["ports"]
    }
    assert set(allowed) == {7070, 7071, 7072}
    cidrs = {
        to["ipBlock"]["cidr"]
        for rule in policy["egress"]
        for to in rule.get("to", ())
        if "ipBlock" in to
    }
    assert {"169.254.170.23/32", "10.0.0.0/8"} <= cidrs


def test_yaml_is_tidy():
    yamllint = shutil.which("yamllint")
    if yamllint is None:
        pytest.skip("yamllint is not installed: apt-get install yamllint")
    rules = (
        "{extends: default, rules: {line-length: {max: 130}, document-start: disable,"
        " comments: {min-spaces-from-content: 2}, braces: disable,"
        " indentation: {indent-sequences: consistent}}}"
    )
    paths = [CHART / "values.yaml", CHART / "Chart.yaml", CHART / "ci", CHART.parent / "examples"]
    done = subprocess.run(
        [yamllint, "--strict", "-d", rules, *map(str, paths)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
