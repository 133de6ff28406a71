"""The command line against a real server over a real S3 server."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotshard.cli import app, exits
from hotshard.cli.cache_process import CacheProcess
from hotshard.cli.ports import free_ports
from integration.conftest import origin_bytes, sealed_shards
from support.content import content
from support.s3 import client, new_bucket

MIB = 1 << 20


@pytest.fixture(scope="module")
def name(s3) -> str:
    """A bucket for all tests of the module."""
    return new_bucket(client(s3))


@pytest.fixture(scope="module")
def node(s3, name, tmp_path_factory) -> Iterator[CacheProcess]:
    """One server for all tests; each begins with nothing cached."""
    document = {"origins": [{"prefix": f"s3://{name}/"}], "free_space_floor": "64MiB"}
    with CacheProcess(str(tmp_path_factory.mktemp("n")), document) as process:
        yield process


@pytest.fixture(scope="module")
def objects(s3, name) -> dict[str, bytes]:
    """uri -> content of what is in the bucket."""
    keys = {"d/big.bin": content(3 * MIB, 1), "d/empty": b"", "d/sub/ü x.bin": content(5000, 2)}
    for key, body in keys.items():
        client(s3).put_object(Bucket=name, Key=key, Body=body)
    return {f"s3://{name}/{key}": body for key, body in keys.items()}


@pytest.fixture
def cli(node, name, capfdbinary):
    """Runs a command line in this process; exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, bytes, str]:
        where = ["--address", node.address, "--grpc-address", node.grpc]
        capfdbinary.readouterr()
        code = app.run([*where, *arguments])
        printed = capfdbinary.readouterr()
        return code, printed.out, printed.err.decode()

    run("evict", "--include-pinned", f"s3://{name}/")
    return run


def big_of(objects):
    return next(uri for uri in objects if uri.endswith("big.bin"))


def prefix_of(objects):
    return big_of(objects).removesuffix("big.bin")


def test_ls(cli, objects):
    prefix = prefix_of(objects)
    code, out, _ = cli("ls", prefix)
    assert code == exits.OK
    assert out.decode().splitlines() == [f"{prefix}big.bin", f"{prefix}empty", f"{prefix}sub/"]
    code, out, _ = cli("ls", "-r", prefix)
    assert out.decode().splitlines() == sorted(objects)
    code, out, _ = cli("ls", "-l", prefix)
    assert "3.00 MiB" in out.decode()
    code, out, _ = cli("ls", "--json", prefix)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0]["size"] == 3 * MIB
    assert lines[-1] == {"prefix": f"{prefix}sub/"}


def test_stat(cli, objects):
    uri = big_of(objects)
    code, out, _ = cli("stat", "--json", uri)
    assert code == exits.OK
    assert json.loads(out)["size"] == 3 * MIB
    code, out, _ = cli("stat", uri)
    assert f"({3 * MIB} bytes)" in out.decode()


def test_cat_writes_the_bytes(cli, objects):
    for uri, body in objects.items():
        assert cli("cat", uri) == (exits.OK, body, "")
    uri, body = big_of(objects), objects[big_of(objects)]
    assert cli("cat", "--offset", "1000", "--length", "5", uri)[1] == body[1000:1005]
    assert cli("cat", "--offset", str(3 * MIB - 2), uri)[1] == body[-2:]
    assert cli("cat", "--offset", str(4 * MIB), uri)[1] == b""
    assert cli("cat", "--length", "0", uri)[1] == b""


def test_cat_into_a_pipe_that_closes_is_quiet(node, objects):
    command = [sys.executable, "-m", "hotshard.cli", "--address", node.address, "cat"]
    with subprocess.Popen(
        [*command, big_of(objects)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.read(10) == objects[big_of(objects)][:10]
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == b""
        assert process.wait() == exits.FAILED


def test_what_is_not_there(cli, objects):
    missing = f"{prefix_of(objects)}none"
    for command in ("stat", "cat", "explain"):
        code, out, err = cli(command, missing)
        assert (code, out) == (exits.NOT_FOUND, b"")
        assert err.startswith("hotshard: ")
        assert err.count("\n") == 1
    assert cli("cp", missing, "anywhere")[0] == exits.NOT_FOUND
    assert cli("stat", "s3://another-bucket/k")[0] == exits.PERMISSION
    assert cli("stat", "gs://bucket/k")[0] == exits.USAGE


def test_cp_of_one_object(cli, objects, tmp_path):
    uri = big_of(objects)
    for target, path in (("x", "x"), ("new/y", "new/y"), (".", "big.bin"), ("dir/", "dir/big.bin")):
        assert cli("cp", uri, f"{tmp_path}/{target}")[0] == exits.OK
        assert (tmp_path / path).read_bytes() == objects[uri]
    assert not list(tmp_path.rglob("*.part"))


def test_cp_of_a_prefix_keeps_the_tree(cli, objects, tmp_path):
    prefix = prefix_of(objects)
    for source in (prefix, prefix.removesuffix("/")):
        target = tmp_path / str(len(source))
        assert cli("cp", "-r", source, str(target))[0] == exits.OK
        copied = {p.relative_to(target).as_posix(): p.read_bytes() for p in files_below(target)}
        assert copied == {uri.removeprefix(prefix): body for uri, body in objects.items()}


def test_cp_tells_what_could_not_be_copied_and_copies_the_rest(cli, objects, tmp_path):
    prefix = prefix_of(objects)
    (tmp_path / "big.bin" / "in-the-way").mkdir(parents=True)
    code, _, err = cli("cp", "-r", prefix, str(tmp_path))
    assert code == exits.PARTIAL
    assert err.startswith(f"failed: {prefix}big.bin: ")
    assert err.count("failed: ") == 1
    assert {path.name for path in files_below(tmp_path)} == {"empty", "ü x.bin"}


def files_below(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def test_warm_is_honest(cli, objects, node):
    prefix = prefix_of(objects)
    code, out, _ = cli("warm", prefix)
    assert code == exits.OK
    assert "3/3 objects" in out.decode()
    assert "100.0%" in out.decode()
    assert sealed_shards(node) == 3
    before = origin_bytes(node)
    assert cli("cat", big_of(objects))[0] == exits.OK
    assert origin_bytes(node) == before


def test_warm_of_what_is_not_there_is_partial(cli, objects):
    missing = f"{prefix_of(objects)}none"
    code, out, err = cli("warm", prefix_of(objects), missing)
    assert code == exits.PARTIAL
    assert missing in err
    assert "100.0%" not in out.decode()
    assert cli("warm", "--allow-partial", missing)[0] == exits.OK
    code, out, _ = cli("warm", "--json", missing)
    document = json.loads(out)
    assert code == exits.PARTIAL
    assert document["complete"] is False
    assert document["failures"][0]["error"] == "NotFound"


def test_prefetch_returns_at_once(cli, objects):
    code, out, _ = cli("prefetch", "--json", prefix_of(objects))
    assert code == exits.OK
    assert json.loads(out)["job_ids"]


def test_pin_evict_unpin(cli, objects):
    prefix = prefix_of(objects)
    cli("warm", prefix)
    assert json.loads(cli("pin", "--json", big_of(objects))[1])["pins"] == [big_of(objects)]
    assert json.loads(cli("evict", "--json", prefix)[1]) == {"shards": 2, "bytes": 5000}
    assert json.loads(cli("explain", "--json", big_of(objects))[1])["shards"][0]["pinned"] is True
    assert json.loads(cli("unpin", "--json", big_of(objects))[1])["pins"] == []
    assert "1 shards" in cli("evict", prefix)[1].decode()


def test_explain_and_status(cli, objects):
    uri = big_of(objects)
    cli("cat", uri)
    code, out, _ = cli("explain", uri)
    assert code == exits.OK
    assert "sealed" in out.decode()
    code, out, _ = cli("status")
    assert code == exits.OK
    assert "ready" in out.decode()
    document = json.loads(cli("status", "--json")[1])
    assert document["disks"][0]["sealed_shards"] == 1
    assert "hotshard_origin" in cli("status", "--counters")[1].decode()


def test_the_server_is_started_by_serve(tmp_path, unused_addresses):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_bytes(b"hello")
    grpc_listen, admin_listen = unused_addresses
    socket = tmp_path / "s.sock"
    command = [sys.executable, "-m", "hotshard.cli"]
    serve = [*command, "serve", "--origin", f"file://{tmp_path}/data/"]
    serve += ["--cache-dir", str(tmp_path / "cache"), "--socket", str(socket)]
    serve += ["--grpc-listen", grpc_listen, "--admin-listen", admin_listen]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        for line in server.stderr:
            if "ready" in line:
                break
        read = [*command, "--address", f"unix://{socket}", "cat", f"file://{tmp_path}/data/x"]
        assert subprocess.run(read, check=True, capture_output=True).stdout == b"hello"
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
        assert server.wait() == 0


@pytest.fixture
def unused_addresses():
    return [f"127.0.0.1:{port}" for port in free_ports(2)]


def test_config_check_reports_every_mistake_at_once(tmp_path):
    config = tmp_path / "hotshard.yaml"
    config.write_text("origins: [nonsense]\nshard_bytes: -1\nunknown_key: 1\n")
    command = [sys.executable, "-m", "hotshard.cli", "config", "check", str(config)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HOTSHARD_")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == exits.USAGE
    assert all(key in done.stderr for key in ("origins", "shard_bytes", "unknown_key"))
    config.write_text("origins: ['file:///data/']\n")
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == exits.OK
