"""What the chart tells the parts: configurations, arguments, paths, directories."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from cache_server.config import load
from hotshard.cli.app import cli, command_of
from hotshard.core.errors import ConfigError
from hotshard.csi.options import DriverOptions
from support.chart import (
    DEFAULT,
    VALUES,
    containers,
    named,
    rendered,
    server_configs,
)

SNAPSHOTS = Path(__file__).parent / "snapshots"
each_values = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)


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
            csi = command_of("csi").commands[command]  # type: ignore[attr-defined]
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
