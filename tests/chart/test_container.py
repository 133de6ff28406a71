"""Server and keeper as the chart describes their containers, run for real: user, rights, files and probes.

The server in a mount namespace, with a read-only root, after the init container's own program. The API
server is that of tests/support/kube_api.py; what is missing is a kubelet.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import yaml

from hotshard import aio
from hotshard.cli.ports import free_ports
from support.chart import containers, named, rendered
from support.kube_api import KubeApi, endpoint, slice_of

USER = 65532
READY_S = 60

ENTER = """
mount -t tmpfs tmpfs /run
mkdir -p /run/hotshard /run/secrets/kubernetes.io/serviceaccount
mount --bind "$ACCOUNT" /run/secrets/kubernetes.io/serviceaccount
mount --bind "$SHARED" /run/hotshard
mount --bind "$DATA" "$DATA"
setpriv --bounding-set=-all,+chown,+dac_override --inh-caps=-all --no-new-privs \
  sh -ec "$PREPARE" prepare "$USER_ID" false /run/hotshard "$DATA"
mount -o remount,bind,ro /
exec setpriv --reuid="$USER_ID" --regid="$USER_ID" --clear-groups --bounding-set=-all --inh-caps=-all \
  --no-new-privs "$PYTHON" -m cache_server --config "$CONFIG"
"""


def answer(port, path):
    try:
        with closing(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5)) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def status_of(pid):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@asynccontextmanager
async def running(container, config, api, directories):
    """The container, in its namespace; its admin port and its process."""
    data, shared, prepare = directories
    environ = {
        **{name: os.environ[name] for name in ("PATH",)},
        **{each["name"]: "127.0.0.1" for each in container["env"]},
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": api.url.rpartition(":")[2],
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    given = {"ACCOUNT": api.account, "DATA": data, "SHARED": shared, "CONFIG": config}
    given |= {"PREPARE": prepare, "USER_ID": USER, "PYTHON": sys.executable}
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "sh", "-ec", ENTER),
        env=environ | {name: str(value) for name, value in given.items()},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            await process.wait()


async def until_ready(port, process):
    async with asyncio.timeout(READY_S):
        while (await asyncio.to_thread(answer, port, "/readyz"))[0] != 200:
            assert process.returncode is None, "the server ended"
            await asyncio.sleep(0.1)


@pytest.fixture
def place():
    """A directory that the server's user may enter, as it may not those of pytest."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield Path(path)


@pytest.fixture
async def api(place):
    account = place / "account"
    account.mkdir()
    server = KubeApi(account, "hotshard-peers")
    await server.start()
    yield server
    await server.stop()


async def test_the_server_works_with_what_it_is_given_and_no_more(place, api):
    if os.getuid() or not all(map(shutil.which, ("unshare", "setpriv"))):
        pytest.skip("needs root, unshare and setpriv")
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("a mount namespace cannot be made here")
    tree, data, shared = (place / name for name in ("tree", "data", "run"))
    for directory in (tree, data, shared):
        directory.mkdir()
    (tree / "object").write_bytes(b"content")
    grpc, bulk, admin = free_ports(3)
    values = place / "values.yaml"
    wanted = {
        "image": {"repository": "registry.example/hotshard"},
        "fullnameOverride": "hotshard",
        "origins": [f"file://{tree}/"],
        "config": {"cluster": {"start_wait_s": 2}},
        "node": {"hostMounts": [{"name": "tree", "hostPath": str(tree), "mountPath": str(tree)}]},
        "server": {
            "listenAddress": "127.0.0.1",
            "ports": {"grpc": grpc, "bulk": bulk, "admin": admin},
        },
    }
    values.write_text(yaml.safe_dump(wanted))
    objects = rendered(values)
    api.put(slice_of("hotshard-peers-1", [endpoint("127.0.0.1")], grpc))
    config = place / "hotshard.yaml"
    text = named(objects, "ConfigMap", "-node")["data"]["hotshard.yaml"]
    config.write_text(text.replace("/cache/0", str(data)))
    parts = {name.rpartition("/")[2]: each for name, each in containers(objects)}
    server, prepare = parts["server"], parts["prepare"]

    async with running(server, config, api, (data, shared, prepare["args"][0])) as process:
        await until_ready(admin, process)
        process_status = status_of(process.pid)
        assert process_status["Uid"].split() == [str(USER)] * 4
        assert int(process_status["CapEff"], 16) == int(process_status["CapBnd"], 16) == 0
        assert process_status["NoNewPrivs"] == "1"
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            path = server[probe]["httpGet"]["path"]
            assert (await asyncio.to_thread(answer, admin, path))[0] == 200
        assert api.lists >= 1
        async with aio.connect(f"unix://{shared}/local.sock") as cache:
            assert await cache.read(f"file://{tree}/object") == b"content"
        assert data.stat().st_uid == USER
        assert list((data / "sealed").rglob("*")) != []
        assert sorted(os.listdir(shared)) == ["local.sock"]
    assert process.returncode == 0


async def test_the_keeper_works_without_any_capability(tmp_path):
    if os.getuid() or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    values = tmp_path / "values.yaml"
    wanted = {
        "image": {"repository": "registry.example/hotshard"},
        "csi": {"keeperDir": str(tmp_path)},
    }
    values.write_text(yaml.safe_dump(wanted))
    (keeper,) = (c for name, c in containers(rendered(values)) if name.endswith("/keeper"))
    assert keeper["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    program = (sys.executable, "-m", "hotshard.cli", *keeper["command"][1:], *keeper["args"])
    process = await asyncio.create_subprocess_exec(*without, *program)
    try:
        async with asyncio.timeout(READY_S):
            while not (tmp_path / "keeper.sock").exists():
                assert process.returncode is None, "the keeper ended"
                await asyncio.sleep(0.05)
        status = status_of(process.pid)
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) as line:
            line.settimeout(10)
            await asyncio.to_thread(line.connect, str(tmp_path / "keeper.sock"))
            line.send(b"LIST")
            assert (await asyncio.to_thread(line.recv, 4096)).split() == [b"OK"]
        rss_kib = int(status["VmRSS"].split()[0])
        limit = keeper["resources"]["limits"]["memory"]
        assert rss_kib < int(limit.removesuffix("Mi")) * 1024 / 2
    finally:
        process.terminate()
        await process.wait()
