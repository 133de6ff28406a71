"""What the chart makes: valid for all versions of Kubernetes, with the rights that each part needs."""

import re
from pathlib import Path

import pytest
import yaml

from support.chart import (
    CHART,
    DEFAULT,
    HELM_VERSIONS,
    KUBE_VERSIONS,
    VALUES,
    containers,
    named,
    pod_specs,
    rendered,
    rendered_text,
    run_helm,
    server_configs,
)
from support.kube_schema import problems

SNAPSHOTS = Path(__file__).parent / "snapshots"
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


@each_values
@pytest.mark.parametrize("helm", HELM_VERSIONS)
def test_lint_finds_nothing(values, helm):
    done = run_helm(helm, "lint", "--strict", str(CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout + done.stderr
    assert "[ERROR]" not in done.stdout + done.stderr


@each_values
def test_every_object_is_valid_in_every_version_of_kubernetes(values):
    wrong = []
    for version in KUBE_VERSIONS:
        kube = "1.30" if version < "1.35" else "1.37"  # the chart asks for 1.35 only
        objects = rendered(values, kube=kube)
        assert len(objects) > 3
        wrong += [f"{version}: {p}" for each in objects for p in problems(each, version)]
    assert wrong == []


def test_validation_sees_what_is_wrong():
    objects = rendered(DEFAULT)
    daemons = named(objects, "DaemonSet", "-node")
    daemons["spec"]["updateStrategy"]["rolling"] = {}
    daemons["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "grpc"
    assert len(problems(daemons, "1.30")) == 2


@each_values
def test_older_helm_makes_the_same(values):
    new, old = (
        sorted(rendered(values, helm), key=lambda o: (o["kind"], o["metadata"]["name"]))
        for helm in HELM_VERSIONS
    )
    assert new == old


def test_the_default_is_what_it_was():
    """It is what `helm template hs helm/hotshard -n ml --kube-version 1.37.0 -f ci/default...` prints."""
    assert rendered_text(DEFAULT) == (SNAPSHOTS / "default.yaml").read_text()


@each_values
def test_what_cannot_be_changed_is_as_in_the_last_version(values):
    """An upgrade fails if a selector, a service name or a volume template differs."""
    last = yaml.safe_load((SNAPSHOTS / "immutable.yaml").read_text())[values.stem]
    now = {
        f"{each['kind']}/{each['metadata']['name']}": {
            key: each["spec"][key]
            for key in ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy")
            if key in each["spec"]
        }
        for each in rendered(values)
        if each["kind"] in ("DaemonSet", "StatefulSet")
    }
    assert now == last


@each_values
def test_selectors_find_their_pods(values):
    for each in rendered(values):
        if each["kind"] in ("DaemonSet", "StatefulSet"):
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"].items() <= labels.items()


# -- rights --


@each_values
def test_only_the_driver_has_privileges(values):
    for name, container in containers(rendered(values)):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True, name
        if name.endswith("-csi/driver"):
            assert context["privileged"] is True
            continue
        assert context.get("privileged", False) is False, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"]["drop"] == ["ALL"], name
        added = ["CHOWN", "DAC_OVERRIDE"] if name.endswith("/prepare") else None
        assert context["capabilities"].get("add") == added, name


@each_values
def test_servers_are_not_root_unless_asked_to(values):
    asked = yaml.safe_load(values.read_text()).get("server", {}).get("runAsUser", 65532)
    users = {
        (context["runAsUser"], context["runAsNonRoot"])
        for name, container in containers(rendered(values))
        if name.endswith("/server")
        for context in [container["securityContext"]]
    }
    assert users == {(asked, asked != 0)}


@each_values
def test_only_servers_have_a_token_of_the_api_server(values):
    objects = rendered(values)
    for name, spec in pod_specs(objects):
        assert spec["automountServiceAccountToken"] is False, name
        # A Service called "hotshard" would set HOTSHARD_PORT, which the server takes for a key.
        assert spec["enableServiceLinks"] is False, name
    holders = {
        name.rpartition("/")[2]
        for name, container in containers(objects)
        for mount in container.get("volumeMounts", ())
        if mount["name"] == "api-token"
    }
    assert holders <= {"server"}


def test_the_role_allows_to_watch_members_and_nothing_else():
    for values in VALUES:
        objects = rendered(values)
        assert [o for o in objects if o["kind"] in ("ClusterRole", "ClusterRoleBinding")] == []
        rules = [rule for o in objects if o["kind"] == "Role" for rule in o["rules"]]
        for rule in rules:
            assert rule == {
                "apiGroups": ["discovery.k8s.io"],
                "resources": ["endpointslices"],
                "verbs": ["get", "list", "watch"],
            }


@each_values
def test_images_are_named_exactly(values):
    for name, container in containers(rendered(values)):
        assert re.fullmatch(
            r"[^:@]+(/[^:@]+)*(:[\w.-]+|@sha256:[0-9a-f]{64})", container["image"]
        ), name
        assert not container["image"].endswith(":latest"), name


@each_values
def test_everything_has_resources_and_servers_have_patient_probes(values):
    for name, container in containers(rendered(values)):
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), name
        assert "memory" in resources["limits"], name
        if not name.endswith(("/server", "/driver")):
            continue
        alive = container["livenessProbe"]
        assert alive["failureThreshold"] * alive["periodSeconds"] >= 300, name
        assert alive["timeoutSeconds"] >= 20, name
        assert {"startupProbe", "readinessProbe"} <= container.keys(), name


@each_values
def test_a_pod_has_the_time_to_drain(values):
    objects = rendered(values)
    configs = server_configs(objects)
    for name, spec in pod_specs(objects):
        for container in spec["containers"]:
            if container["name"] != "server":
                continue
            (source,) = (v["configMap"]["name"] for v in spec["volumes"] if v["name"] == "config")
            grace_s = yaml.safe_load(configs[source]).get("shutdown_grace_s", 20)
            drain_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert spec["terminationGracePeriodSeconds"] > grace_s + drain_s, name


def test_the_keeper_is_replaced_by_hand_only_and_the_driver_before_it_goes():
    objects = rendered(DEFAULT)
    assert named(objects, "DaemonSet", "-keeper")["spec"]["updateStrategy"] == {"type": "OnDelete"}
    driver = named(objects, "DaemonSet", "-csi")["spec"]["updateStrategy"]["rollingUpdate"]
    assert driver == {"maxSurge": 1, "maxUnavailable": 0}
