"""The Helm chart as tests see it: rendered objects, and the programs of .ci/ that belong to it."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "hotshard"
EXAMPLES = ROOT / "helm" / "examples"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
DEFAULT = CHART / "ci" / "default-values.yaml"
HELM_VERSIONS = ("4.3.1", "3.17.2")
KUBE_VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
Object = dict[str, Any]


@cache
def program(name: str) -> ModuleType:
    """A program of .ci/, which is no package."""
    path = str(ROOT / ".ci" / f"{name}.py")
    module = ModuleType(f"ci_{name}")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up
    SourceFileLoader(module.__name__, path).exec_module(module)
    return module


@cache
def helm_binary(version: str) -> str:
    """Where helm is; the test is skipped where it cannot be had."""
    fetcher = program("helm")
    try:
        return str(fetcher.helm(version))
    except fetcher.HelmUnavailable as error:
        pytest.skip(f"no helm {version}: {error}")


def run_helm(version: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; the caller looks at the exit code."""
    return subprocess.run(
        [helm_binary(version), *arguments], check=False, capture_output=True, text=True, timeout=60
    )


@cache
def rendered_text(values: Path, helm: str = HELM_VERSIONS[0], kube: str = "1.37") -> str:
    """What `helm template` prints for one file of values."""
    place = ["hs", str(CHART), "--namespace", "ml", "--kube-version", f"{kube}.0"]
    done = run_helm(helm, "template", *place, "--values", str(values))
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(values: Path, helm: str = HELM_VERSIONS[0], kube: str = "1.37") -> list[Object]:
    """The same as objects; a fresh copy each time."""
    loaded = yaml.load_all(rendered_text(values, helm, kube), Loader=yaml.CSafeLoader)
    return [each for each in loaded if each]


def refusal(helm: str, *settings: str) -> str:
    """Why values over the least ones are refused.

    Args:
        helm: its version.
        settings: `name=value`, the value as JSON.
    """
    given = [part for setting in settings for part in ("--set-json", setting)]
    done = run_helm(helm, "template", "hs", str(CHART), "--values", str(DEFAULT), *given)
    assert done.returncode != 0, f"{settings} was accepted"
    return done.stderr


def named(objects: list[Object], kind: str, ending: str = "") -> Object:
    """The only object of a kind whose name ends like that."""
    (found,) = (
        each
        for each in objects
        if each["kind"] == kind and each["metadata"]["name"].endswith(ending)
    )
    return found


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod of some objects, with a name for messages."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata'].get('name', '')}"
        if each["kind"] == "Pod":
            yield name, each["spec"]
        elif each["kind"] in ("DaemonSet", "StatefulSet", "Deployment", "Job"):
            yield name, each["spec"]["template"]["spec"]


def containers(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every container, with a name for messages."""
    for name, spec in pod_specs(objects):
        for each in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{name}/{each['name']}", each


def server_configs(objects: list[Object]) -> dict[str, str]:
    """The server's configuration in each ConfigMap that has one."""
    return {
        each["metadata"]["name"]: each["data"]["hotshard.yaml"]
        for each in objects
        if each["kind"] == "ConfigMap" and "hotshard.yaml" in each["data"]
    }


def schema() -> dict[str, Any]:
    """values.schema.json."""
    return json.loads((CHART / "values.schema.json").read_text())  # type: ignore[no-any-return]


def at(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """A value by its path."""
    found: Any = values
    for name in path:
        found = found[name]
    return found
