"""The examples are valid, run what exists, and read through volumes as the driver understands them."""

import ast
import importlib.util

import pytest
import yaml

import hotshard
from hotshard.cli.app import command_of
from hotshard.csi.volume import Rejected, Request, wish
from support.chart import (
    CHART,
    EXAMPLES,
    HELM_VERSIONS,
    KUBE_VERSIONS,
    containers,
    rendered,
    run_helm,
)
from support.kube_schema import problems

OBJECTS = sorted(set(EXAMPLES.glob("*.yaml")) - set(EXAMPLES.glob("*-values.yaml")))
each_example = pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem)


def objects(path):
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def templates(each):
    """The pods of an object: Jobs have one, workflows one for each step."""
    if each["kind"] == "Workflow":
        return [
            {**t, "containers": [t["container"]]}
            for t in each["spec"]["templates"]
            if "container" in t
        ]
    return [each["spec"]["template"]["spec"]] if each["kind"] == "Job" else []


@each_example
def test_it_is_valid(path):
    wrong = [
        f"{v}: {p}" for v in KUBE_VERSIONS for each in objects(path) for p in problems(each, v)
    ]
    assert wrong == []
    assert objects(path)


@each_example
def test_its_pods_are_fit_for_restricted_namespaces(path):
    for each in objects(path):
        for pod in templates(each):
            context = each["spec"].get("template", each)["spec"]["securityContext"]
            assert context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
            for volumes in (pod.get("volumes", ()), each["spec"].get("volumes", ())):
                assert {kind for v in volumes for kind in v} <= {"name", "csi", "emptyDir"}
        if each["kind"] == "Job":
            for name, container in containers([each]):
                assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name


@each_example
def test_its_commands_exist(path):
    for each in objects(path):
        for pod in templates(each):
            for container in (*pod.get("initContainers", ()), *pod["containers"]):
                if "/hotshard:" in container["image"]:
                    program, command, *arguments = container["command"]
                    assert program == "hotshard"
                    with command_of(command).make_context(command, list(arguments)):
                        pass


def volumes():
    """Every volume of the driver in the examples, as kubelet would ask for it."""
    for path in OBJECTS:
        for each in objects(path):
            found = [
                (v["csi"], 1)
                for pod in templates(each)
                for v in pod.get("volumes", ())
                if "csi" in v
            ]
            found += [(v["csi"], 1) for v in each["spec"].get("volumes", ()) if "csi" in v]
            if each["kind"] == "PersistentVolume":
                found.append((each["spec"]["csi"], 3))
            for csi, access_mode in found:
                if csi["driver"] == "csi.hotshard.io":
                    flags = each["spec"].get("mountOptions", ())
                    yield path.stem, csi, access_mode, flags


def asked(csi, access_mode, flags):
    """What the driver makes of it."""
    target = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~csi/v/mount"
    context = dict(csi["volumeAttributes"])
    if access_mode == 1:
        context["csi.storage.k8s.io/ephemeral"] = "true"
    request = Request("v", target, "mount", access_mode, csi["readOnly"], context, flags)
    return wish(request, "/var/lib/kubelet")


def test_the_driver_accepts_its_volumes():
    found = {name: asked(*rest) for name, *rest in volumes()}
    assert found["train-mount"].uri == "s3://my-bucket/train/"
    assert found["train-mount"].options.immutable is True
    assert found["volume"].options.ttl_s == 300
    assert [found[name].uri for name in ("train-client", "warm-init", "warm-argo")] == ["", "", ""]


def test_the_driver_would_refuse_a_wrong_one():
    _, csi, *rest = next(found for found in volumes() if found[0] == "train-mount")
    csi["volumeAttributes"]["imutable"] = "true"
    with pytest.raises(Rejected, match="imutable"):
        asked(csi, *rest)


def test_its_program_uses_what_the_client_has():
    (job,) = objects(EXAMPLES / "train-client.yaml")
    (program,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    tree = ast.parse(program)
    imported = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert ("hotshard.torch", "ObjectDataset") in imported
    spec = importlib.util.find_spec("hotshard.torch")
    assert spec is not None
    assert spec.origin is not None
    with open(spec.origin) as source:
        defined = {n.name for n in ast.parse(source.read()).body if isinstance(n, ast.ClassDef)}
    assert "ObjectDataset" in defined
    called = {
        n.func.attr
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
    }

    assert called - {"connect"} <= set(dir(hotshard.Client))


def test_values_of_the_examples_are_good():
    for path in EXAMPLES.glob("*-values.yaml"):
        assert rendered(path)
        done = run_helm(HELM_VERSIONS[0], "lint", "--strict", str(CHART), "--values", str(path))
        assert done.returncode == 0, done.stdout
