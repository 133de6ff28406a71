"""The chart as a package."""

import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from support.chart import (
    CHART,
    HELM_VERSIONS,
    ROOT,
    VALUES,
    rendered,
    rendered_text,
    run_helm,
)

SNAPSHOTS = Path(__file__).parent / "snapshots"
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


def test_the_notes_tell_what_to_do_next():
    """Helm 4 shows them without a cluster."""
    place = ["hs", str(CHART), "--namespace", "ml", "--dry-run=client"]
    values = CHART / "ci" / "eks-pod-identity-values.yaml"
    done = run_helm(HELM_VERSIONS[0], "install", *place, "--values", str(values))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    for words in (
        "pod-security.kubernetes.io/enforce=privileged",
        "create-pod-identity-association",
        "helm -n ml test hs",
        "driver: csi.hotshard.io",
        "HOTSHARD_ADDRESS=hs-hotshard.ml:7070",
    ):
        assert words in notes
    assert "No origins are set" not in notes


def test_the_package_has_what_templates_read_and_no_test_values(tmp_path):
    done = run_helm(HELM_VERSIONS[0], "package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("hotshard-*.tgz")
    with tarfile.open(package) as archive:
        names = archive.getnames()
    assert "hotshard/files/rules.yaml" in names
    assert "hotshard/values.schema.json" in names
    assert [name for name in names if name.startswith("hotshard/ci/")] == []


def test_the_chart_is_of_the_version_that_it_installs():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["appVersion"] == project["version"]


def checkov_skips(each):
    annotations = each["metadata"].get("annotations", {})
    return [text for name, text in annotations.items() if name.startswith("checkov.io/skip")]


@each_values
def test_what_checkov_is_told_to_skip_has_a_reason(values):
    for each in rendered(values):
        for skip in checkov_skips(each):
            check, _, reason = skip.partition("=")
            assert check.startswith("CKV")
            assert len(reason) > 10
            privileges = {"CKV_K8S_16", "CKV_K8S_20", "CKV_K8S_28", "CKV_K8S_31", "CKV_K8S_37"}
            assert check not in privileges or each["metadata"]["name"].endswith("-csi")


@pytest.mark.parametrize("name", ["eks-pod-identity", "dedicated"])
def test_checkov_finds_nothing(name, tmp_path):
    checkov = shutil.which("checkov")
    if checkov is None:
        pytest.skip("checkov is not installed (300 MB): pipx install checkov==3.3.30")
    values = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text())
    values["image"] |= {"digest": f"sha256:{'0' * 64}", "pullPolicy": "Always"}
    values.setdefault("networkPolicy", {})["enabled"] = True
    strict = tmp_path / "values.yaml"
    strict.write_text(yaml.safe_dump(values))
    path = tmp_path / "rendered.yaml"
    path.write_text(rendered_text(strict))
    options = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    command = [checkov, "-f", str(path), *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "Failed checks: 0" in done.stdout
