"""What the chart makes: valid for all versions of Kubernetes, with the rights that each part needs."""

import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cache_server.config import load
from hotshard.cli.app import cli
from hotshard.core.errors import ConfigError
from hotshard.csi.options import DriverOptions
from support.chart import (
    CHART,
    DEFAULT,
    HELM_VERSIONS,
    KUBE_VERSIONS,
    ROOT,
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
from support.prometheus import promtool

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


# -- what the parts are told --


@each_values
def test_the_server_accepts_its_configuration(values, tmp_path):
    """What `hotshard config check` does; the environment is what the chart sets."""
    wanted = yaml.safe_load(values.read_text())
    for name, text in server_configs(rendered(values)).items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        config = load(str(path), {"HOTSHARD_GRPC__ADVERTISE": "10.0.0.1"}, {})
        assert len(config.origins) == len(wanted.get("origins", []))
        assert config.grpc.advertise == "10.0.0.1"


def test_a_configuration_that_is_wrong_would_be_noticed(tmp_path):
    (text,) = server_configs(rendered(DEFAULT)).values()
    path = tmp_path / "wrong.yaml"
    path.write_text(text.replace("cache_dirs", "cache_dir"))
    with pytest.raises(ConfigError, match="cache_dir"):
        load(str(path), {}, {})


def test_ports_and_paths_agree():
    for values in VALUES:
        objects = rendered(values)
        configs = [yaml.safe_load(text) for text in server_configs(objects).values()]
        for name, container in containers(objects):
            mounts = {m["mountPath"] for m in container.get("volumeMounts", ())}
            ports = {p["name"]: p["containerPort"] for p in container.get("ports", ())}
            if name.endswith("/server"):
                config = next(c for c in configs if f":{ports['grpc']}" in c["grpc"]["listen"])
                assert config["bulk"]["listen"].endswith(f":{ports['bulk']}")
                assert config["admin"]["listen"].endswith(f":{ports['admin']}")
                assert "/run/hotshard" in mounts


def test_driver_and_keeper_start_with_their_arguments(monkeypatch):
    """The arguments are read by the commands themselves."""
    for values in VALUES:
        for name, container in containers(rendered(values)):
            if container["command"][:2] != ["hotshard", "csi"]:
                continue
            command, *arguments = container["command"][2:] + container.get("args", [])
            for variable in container.get("env", ()):
                monkeypatch.setenv(variable["name"], "node")
            csi = cli.commands["csi"].commands[command]  # type: ignore[attr-defined]
            with csi.make_context(command, list(arguments), obj=None) as context:
                assert context.params, name
    assert CliRunner().invoke(cli, ["csi", "serve", "--nonsense"]).exit_code == 2


def test_the_driver_finds_the_servers_socket_and_the_keeper():
    for values in VALUES:
        objects = rendered(values)
        drivers = [c for name, c in containers(objects) if name.endswith("-csi/driver")]
        for driver in drivers:
            given = dict(arg[2:].split("=", 1) for arg in driver["args"])
            options = DriverOptions(
                node_id="node",
                name=given["driver-name"],
                kubelet_dir=given["kubelet-dir"],
                client_socket=given["client-socket"],
                keeper_socket=given["keeper-socket"],
            )
            hosts = {
                v["name"]: v.get("hostPath", {}).get("path")
                for v in named(objects, "DaemonSet", "-csi")["spec"]["template"]["spec"]["volumes"]
            }
            paths = {m["name"]: m["mountPath"] for m in driver["volumeMounts"]}
            assert {n: hosts[n] for n in paths if hosts[n]} == {
                n: paths[n] for n in paths if hosts[n]
            }
            assert options.published_dir == hosts["run"]
            node = named(objects, "DaemonSet", "-node")["spec"]["template"]["spec"]
            assert {
                "name": "run",
                "hostPath": {"path": hosts["run"], "type": "DirectoryOrCreate"},
            } in node["volumes"]
            if values == DEFAULT:
                assert options.plugin_dir == paths["plugin"]
            (keeper,) = (c for n, c in containers(objects) if n.endswith("-keeper/keeper"))
            assert f"--socket={options.keeper_socket}" in keeper["args"]
            registered = [o["metadata"]["name"] for o in objects if o["kind"] == "CSIDriver"]
            assert registered in ([options.name], [])


def test_members_are_the_pods_behind_the_headless_service():
    for values in VALUES:
        objects = rendered(values)
        peers = named(objects, "Service", "-peers")
        assert peers["spec"]["clusterIP"] == "None"
        members = [
            each["metadata"]["name"]
            for each in objects
            if each["kind"] in ("DaemonSet", "StatefulSet")
            and peers["spec"]["selector"].items()
            <= each["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert sorted(members) == sorted(server_configs(objects))
        for text in server_configs(objects).values():
            cluster = yaml.safe_load(text)["cluster"]
            if cluster["provider"] == "kubernetes":
                assert cluster["service"] == peers["metadata"]["name"]
                assert cluster["port_name"] in {p["name"] for p in peers["spec"]["ports"]}


def test_a_service_asks_for_the_nearest_pod_where_kubernetes_can():
    for kube, expected in (("1.34", None), ("1.35", "PreferSameNode")):
        service = named(rendered(DEFAULT, kube=kube), "Service", "hs-hotshard")
        assert service["spec"].get("trafficDistribution") == expected


# -- the init container's program, run for real --


def prepare(tmp_path, dirs, *, uid=65532, instance_store=False, environ=None):
    objects = rendered(DEFAULT)
    (container,) = (c for name, c in containers(objects) if name.endswith("/prepare"))
    script = container["args"][0]
    sockets = tmp_path / "run"
    sockets.mkdir(exist_ok=True)
    arguments = ["prepare", str(uid), str(instance_store).lower(), str(sockets), *map(str, dirs)]
    return subprocess.run(
        [*container["command"], script, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environ,
    )


def test_directories_become_the_servers(tmp_path):
    if os.getuid():
        pytest.skip("only root can give files away")
    data = tmp_path / "data"
    (data / "inside").mkdir(parents=True)
    done = prepare(tmp_path, [data])
    assert (done.returncode, done.stderr) == (0, "")
    assert {p.stat().st_uid for p in (data, data / "inside", tmp_path / "run")} == {65532}


@pytest.mark.parametrize(
    ("model", "code"),
    [("Amazon EC2 NVMe Instance Storage  \n", 0), ("Amazon Elastic Block Store\n", 1)],
)
def test_a_directory_that_is_not_on_instance_store_is_refused(tmp_path, model, code):
    data = tmp_path / "data"
    data.mkdir()
    device = data.stat().st_dev
    disk = tmp_path / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}"
    (disk / "device").mkdir(parents=True)
    (disk / "device" / "model").write_text(model)
    environ = {"PATH": os.environ["PATH"], "SYS": str(tmp_path / "sys")}
    uid = os.getuid()
    done = prepare(tmp_path, [data], uid=uid, instance_store=True, environ=environ)
    assert done.returncode == code, done.stderr
    assert code == 0 or "Amazon Elastic Block Store" in done.stderr


# -- monitoring --


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


# -- the release --


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
