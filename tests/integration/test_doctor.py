"""`hotshard doctor` on this machine, with faults that are made for real."""

import email.utils
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hotshard.cli.ports import free_ports
from support.content import content


@pytest.fixture
def s3_config(tmp_path, bucket):
    """A configuration with one object to read; its keys may be replaced."""
    boto, name = bucket
    boto.put_object(Bucket=name, Key="a/1", Body=content(10_000))

    def write(**more):
        document = {
            "origins": [{"prefix": f"s3://{name}/"}],
            "cache_dirs": [str(tmp_path / "cache")],
            "free_space_floor": "64MiB",
            "local_socket": {"path": str(tmp_path / "socket")},
            **more,
        }
        path = tmp_path / "hotshard.yaml"
        path.write_text(json.dumps(document))
        return str(path)

    return write


def run(*arguments, before=(), address=None, environment=None):
    """Exit code, and verdict, fact and remedy of each check."""
    command = [*before, sys.executable, "-m", "hotshard.cli"]
    command += ["--address", address] if address else []
    done = subprocess.run(
        [*command, "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    assert done.stdout, done.stderr
    found = {each["check"]: each for each in json.loads(done.stdout)}
    return done.returncode, found


def verdict(found, check):
    exact = [e for name, e in found.items() if name == check]
    (each,) = exact or [e for name, e in found.items() if name.startswith(check)]
    if each["verdict"] in {"warn", "fail"}:
        assert each["remedy"], f"{check} does not say how to mend it"
    return each["verdict"], each["fact"]


def test_a_node_that_is_well(s3_config, node, bucket):
    code, found = run("--config", s3_config(), address=node.address)
    assert code == 0, found
    assert [e for e in found.values() if e["verdict"] == "fail"] == []
    assert verdict(found, "local socket")[0] == "ok"
    assert "LIST" in verdict(found, f"origin s3://{bucket[1]}/")[1]
    assert verdict(found, "credentials") == ("ok", "from env")
    assert verdict(found, "clock")[0] == "ok"
    assert verdict(found, "versions")[0] == "ok"
    assert verdict(found, "members")[0] == "ok"


def test_without_a_server_it_checks_all_the_same(s3_config, tmp_path):
    code, found = run("--config", s3_config(), address=f"unix://{tmp_path}/none")
    assert code == 0
    assert verdict(found, "local socket")[0] == "warn"
    assert verdict(found, "origin s3://")[0] == "ok"


def test_people_see_what_to_do(s3_config):
    done = subprocess.run(
        [sys.executable, "-m", "hotshard.cli", "doctor", "--config", s3_config(log={"level": "x"})],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "FAIL  configuration" in done.stdout
    assert "log.level" in done.stdout
    assert "-> see docs/CONFIGURATION.md" in done.stdout
    assert "1 broken" in done.stdout


def test_credentials_that_are_refused(s3_config):
    code, found = run("--config", s3_config(), environment={"AWS_SECRET_ACCESS_KEY": "wrong"})
    assert code == 1
    assert verdict(found, "origin s3://")[0] == "fail"
    assert "s3:ListBucket" in found[next(n for n in found if n.startswith("origin"))]["remedy"]


def test_no_credentials_at_all(s3_config):
    nothing = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": "/nonexistent"}
    code, found = run("--config", s3_config(), environment=nothing)
    assert code == 1
    assert verdict(found, "credentials")[0] == "fail"


def test_an_origin_that_does_not_answer(s3_config):
    (port,) = free_ports(1)
    away = {"prefix": "s3://bucket/", "endpoint_url": f"http://127.0.0.1:{port}"}
    code, found = run("--config", s3_config(origins=[away]))
    assert code == 1
    assert verdict(found, "origin s3://bucket/")[0] == "fail"
    assert verdict(found, "clock")[0] == "skipped"


def test_directories_of_all_kinds(s3_config, tmp_path):
    (tmp_path / "file").write_text("")
    in_memory = f"/dev/shm/hotshard-doctor-{os.getpid()}"
    dirs = [str(tmp_path / "file"), "/sys/hotshard", in_memory]
    missing = "file:///nonexistent/data/"
    code, found = run("--config", s3_config(cache_dirs=dirs, origins=[missing]))
    assert code == 1
    assert verdict(found, f"cache dir {dirs[0]}") == ("fail", f"{dirs[0]} is no directory")
    assert verdict(found, "cache dir /sys/hotshard")[0] == "fail"
    kind, fact = verdict(found, f"cache dir {in_memory}")
    assert kind == "warn"
    assert "tmpfs" in fact
    assert not os.path.exists(in_memory)
    assert verdict(found, f"origin {missing}")[0] == "fail"


def test_a_disk_that_is_full(s3_config, tmp_path):
    code, found = run("--config", s3_config(free_space_floor="99.9%"))
    assert code == 1
    kind, fact = verdict(found, f"cache dir {tmp_path}/cache: space")
    assert kind == "fail"
    assert "room for 0" in fact


class LateClock(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response_only(403)
        self.send_header("Date", email.utils.formatdate(time.time() - 1200, usegmt=True))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_clock_that_is_wrong_against_the_origins(s3_config):
    with ThreadingHTTPServer(("127.0.0.1", 0), LateClock) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        late = {"prefix": "s3://bucket/", "endpoint_url": url}
        code, found = run("--config", s3_config(origins=[late]))
        server.shutdown()
        thread.join()
    assert code == 1
    kind, fact = verdict(found, "clock")
    assert kind == "fail"
    assert fact.endswith(" s ahead")
    assert 1195 <= float(fact.split()[0]) <= 1260


def test_a_member_that_cannot_be_reached(s3_config):
    (port,) = free_ports(1)
    cluster = {"provider": "static", "members": [f"127.0.0.1:{port}"]}
    code, found = run("--config", s3_config(cluster=cluster))
    assert code == 1
    kind, fact = verdict(found, f"member 127.0.0.1:{port}: gRPC")
    assert kind == "fail"
    assert "refused" in fact


def test_few_open_files(s3_config):
    before = ("prlimit", "--nofile=1024:1024", "--")
    code, found = run("--config", s3_config(), before=before)
    assert code == 0
    assert verdict(found, "open files") == ("warn", "at most 1,024 (RLIMIT_NOFILE, hard)")


def test_a_socket_that_refuses_us(start_node, s3_config, tmp_path):
    path = str(tmp_path / "refusing")
    socket = {"path": path, "mode": "0666", "allowed_uids": [os.geteuid() + 1]}
    start_node(local_socket=socket)
    code, found = run("--config", s3_config(), address=f"unix://{path}")
    assert code == 1
    kind, fact = verdict(found, "local socket")
    assert kind == "fail"
    assert "allowed_uids" in fact


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take /dev/fuse away")
def test_a_container_without_dev_fuse_is_well(s3_config):
    """As the server's container of the chart is."""
    empty_dev = 'mount -t tmpfs none /dev && touch /dev/null /dev/urandom && exec "$@"'
    before = ("unshare", "--mount", "--propagation", "private", "sh", "-c", empty_dev, "sh")
    if subprocess.run([*before, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a mount namespace cannot be made here")
    code, found = run("--config", s3_config(), before=before)
    assert code == 0, found
    assert found["FUSE"]["verdict"] == "warn"
    assert "the library does" in found["FUSE"]["remedy"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to give up")
def test_fuse_as_it_is_and_without_the_privilege(s3_config):
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    _, found = run("--config", s3_config())
    assert found["FUSE"]["fact"].startswith("protocol 7.")
    dropped = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    _, found = run("--config", s3_config(), before=dropped)
    assert found["FUSE"]["verdict"] == "skipped"
    assert "root" in found["FUSE"]["fact"]
    with open("/proc/self/mountinfo") as mounts:
        assert "hotshard-probe" not in mounts.read()
