"""The mount over a real cache server and a real S3 server."""

import contextlib
import errno
import hashlib
import os
import random
import sqlite3
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from hotshard.cli.cache_process import CacheProcess
from support.waiting import until

RND = random.Random(3)


@pytest.fixture
def node(tmp_path, bucket):
    settings = {
        "origins": [{"prefix": f"s3://{bucket[1]}/", "metadata_ttl_s": 1}],
        "free_space_floor": "64MiB",
        "shard_bytes": "16MiB",
        "block_bytes": "1MiB",
    }
    process = CacheProcess(str(tmp_path / "node"), settings)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def s3_mount(mount, bucket, node, tmp_path):
    def make(prefix: str = "", **options):
        uri = f"s3://{bucket[1]}/{prefix}"
        return mount(tmp_path, server="yes", uri=uri, address=node.address, **options)

    return make


def put(bucket, key: str, data: bytes) -> None:
    bucket[0].put_object(Bucket=bucket[1], Key=key, Body=data)


def run(command, **options) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, check=True, timeout=60, capture_output=True, **options)


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("mode", ["passthrough", "cached", "no_open"])
def test_cold_and_hot_bytes_are_the_origins(bucket, s3_mount, mode):
    sizes = [0, 1, 100_000, (1 << 20) + 1, (16 << 20) - 1, 16 << 20, 40_000_000]
    data = {f"d/f{i}": RND.randbytes(size) for i, size in enumerate(sizes)}
    for key, body in data.items():
        put(bucket, key, body)
    mounted = s3_mount(mode=mode)
    for _ in range(2):
        for key, body in data.items():
            assert digest(mounted / key) == hashlib.sha256(body).hexdigest()


@pytest.fixture
def odd_bucket(s3):
    """moto keeps keys that SeaweedFS folds or refuses."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    boto = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    boto.create_bucket(Bucket="odd-keys")
    yield boto, f"http://{host}:{port}"
    server.stop()


def test_keys_as_paths(odd_bucket, mount, tmp_path):
    keys = ["top", "a", "a/b", "dir/", "m//n", "with space/x y", "ünï/✓", "deep/1/2/3/4", "n" * 255,
            "./dot", "a.c", "a-b", "empty/"]  # fmt: skip
    boto, url = odd_bucket
    for key in keys:
        boto.put_object(Bucket="odd-keys", Key=key, Body=key.encode())
    origin = {"prefix": "s3://odd-keys/", "endpoint_url": url, "addressing": "path"}
    settings = {"origins": [origin], "free_space_floor": "64MiB"}
    with CacheProcess(str(tmp_path / "node"), settings) as node:
        mounted = mount(tmp_path, server="yes", uri="s3://odd-keys/", address=node.address)
        _check_paths(mounted)
        mounted.close()


def _check_paths(mounted) -> None:
    found = {str(p.relative_to(mounted.path)) for p in mounted.path.rglob("*")}
    expected = {"top", "a", "a/b", "dir", "m", "with space", "with space/x y", "ünï", "ünï/✓", "deep",
                "deep/1", "deep/1/2", "deep/1/2/3", "deep/1/2/3/4", "n" * 255, "a.c", "a-b",
                "empty"}  # fmt: skip
    assert found == expected
    assert (mounted / "a" / "b").read_text() == "a/b"
    assert (mounted / "a").is_dir()
    assert (mounted / "with space" / "x y").read_text() == "with space/x y"
    assert list((mounted / "empty").iterdir()) == []
    assert os.getxattr(mounted / "m", "user.hotshard.hidden") == b"1"


def test_a_prefix_of_a_bucket(bucket, s3_mount):
    put(bucket, "train/x/1", b"one")
    put(bucket, "trainer/no", b"no")
    mounted = s3_mount("train")
    assert os.listdir(mounted.path) == ["x"]
    assert (mounted / "x" / "1").read_bytes() == b"one"


def test_a_file_that_changes_at_the_origin_while_it_is_open(bucket, s3_mount, node):
    """SEMANTICS 11: a file on a mount that changes at the origin while it is open gives ESTALE, never a
    mix; opening it again gives the new content.
    """
    old, new = b"a" * (40 << 20), b"b" * (40 << 20)
    put(bucket, "big", old)
    mounted = s3_mount(mode="cached", read_ahead_kib=0)
    fd = os.open(mounted / "big", os.O_RDONLY)
    assert os.pread(fd, 1000, 0) == b"a" * 1000
    put(bucket, "big", new)
    with pytest.raises(OSError) as caught:
        for offset in range(0, 40 << 20, 1 << 20):
            assert set(os.pread(fd, 1 << 20, offset)) == {ord("a")}
    assert caught.value.errno == errno.ESTALE
    os.close(fd)
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        with open(mounted / "big", "rb") as file:
            head = file.read(10)
        if head == b"b" * 10:
            break
        assert head == b"a" * 10
    assert digest(mounted / "big") == hashlib.sha256(new).hexdigest()


def test_without_opens_a_replaced_file_is_stale_once_and_then_the_new_one(bucket, s3_mount, node):
    put(bucket, "small", b"old" * 1000)
    mounted = s3_mount(mode="no_open", ttl_s=600)
    assert os.stat(mounted / "small").st_size == 3000
    put(bucket, "small", b"newer" * 1000)
    with pytest.raises(OSError) as caught:
        (mounted / "small").read_bytes()
    assert caught.value.errno == errno.ESTALE
    give_up = time.monotonic() + 10
    while True:  # the name is asked for again, long before its time is over
        with contextlib.suppress(OSError):
            if (mounted / "small").read_bytes() == b"newer" * 1000:
                break
        assert time.monotonic() < give_up
    assert os.stat(mounted / "small").st_size == 5000


def test_the_cache_server_is_killed_and_comes_back(bucket, s3_mount, node):
    bodies = {f"f{i}": RND.randbytes(3_000_000) for i in range(6)}
    for key, body in bodies.items():
        put(bucket, key, body)
    mounted = s3_mount(mode="cached")
    assert sorted(os.listdir(mounted.path)) == sorted(bodies)
    with open(mounted / "f0", "rb") as file:
        assert file.read(10) == bodies["f0"][:10]
        node.kill()
        reading = subprocess.Popen(["sha256sum", str(mounted / "f1")], stdout=subprocess.PIPE)
        node.start()
        out, _ = reading.communicate(timeout=60)
        assert out.split()[0].decode() == hashlib.sha256(bodies["f1"]).hexdigest()
        assert file.read() == bodies["f0"][10:]


def test_without_a_cache_server_reads_fail_after_a_bounded_wait_and_can_be_killed(
    bucket, s3_mount, node
):
    """SEMANTICS 11: a process that waits for a mount can be killed."""
    for name in ("x", "y", "z"):
        put(bucket, name, b"1" * 5_000_000)
    mounted = s3_mount(mode="cached", request_timeout_s=3, direct="never", direct_after_s=1)
    os.listdir(mounted.path)
    node.kill()
    started = time.monotonic()
    with pytest.raises(OSError) as caught:
        (mounted / "x").read_bytes()
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - started < 6
    reading = subprocess.Popen(["cat", str(mounted / "y")])
    until(lambda: "request" in Path(f"/proc/{reading.pid}/wchan").read_text(), "cat to wait")
    started = time.monotonic()
    reading.kill()
    reading.wait(timeout=2)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("mode", ["passthrough", "cached", "no_open"])
def test_while_the_cache_server_is_away_the_origin_is_read(bucket, s3_mount, node, mode):
    """SEMANTICS 11: while the cache server is away, a mount reads the origin itself, as far as it can, and
    else waits for the server for a bounded time.
    """
    bodies = {f"d/f{i}": RND.randbytes(size) for i, size in enumerate([0, 90_000, 3_000_000])}
    for key, body in bodies.items():
        put(bucket, key, body)
    mounted = s3_mount(mode=mode, direct_after_s=1, ttl_s=0.5)
    os.listdir(mounted.path)
    node.kill()
    put(bucket, "d/late", b"not known to the server")
    started = time.monotonic()
    assert sorted(os.listdir(mounted / "d")) == ["f0", "f1", "f2", "late"]
    for key, body in bodies.items():
        assert (mounted / key).read_bytes() == body
    assert (mounted / "d" / "late").read_bytes() == b"not known to the server"
    assert time.monotonic() - started < 20
    assert b"origin" in os.getxattr(mounted / "d" / "late", "user.hotshard.owner")
    metrics = mounted.metrics()
    assert metrics["hotshard_mount_direct"] == 1
    assert metrics["hotshard_mount_direct_calls_total"] > 0
    assert "reading from the origin" in mounted.log.read_text()
    mounted.kill_reader()  # its successor has never met the server
    put(bucket, "d/later", b"nor this")
    give_up = time.monotonic() + 30
    while not os.path.exists(
        mounted / "d" / "later"
    ):  # the names of before are believed for a while
        assert time.monotonic() < give_up
    assert (mounted / "d" / "later").read_bytes() == b"nor this"
    node.start()
    give_up = time.monotonic() + 30
    while mounted.metrics()["hotshard_mount_direct"]:
        assert time.monotonic() < give_up
        assert not os.path.exists(mounted / f"missing{time.monotonic()}")
    assert (mounted / "d" / "f2").read_bytes() == bodies["d/f2"]
    assert "the cache server is back" in mounted.log.read_text()


def test_an_origin_that_is_away_for_a_moment_is_waited_for(s3, mount, tmp_path):
    """SEMANTICS 11: a read of a mount waits while the origin fails or the cache server is late."""
    origin = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    origin.start()
    host, port = origin.get_host_and_port()
    url = f"http://{host}:{port}"
    boto = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
    boto.create_bucket(Bucket="away")
    body = RND.randbytes(300_000)
    put((boto, "away"), "f", body)
    settings = {
        "origins": [{"prefix": "s3://away/", "endpoint_url": url, "addressing": "path"}],
        "fetch": {"attempts": 2},
        "free_space_floor": "64MiB",
    }
    with CacheProcess(str(tmp_path / "node"), settings) as node:
        mounted = mount(
            tmp_path, server="yes", uri="s3://away/", address=node.address, direct="never"
        )
        assert os.listdir(mounted.path) == ["f"]
        origin.stop()
        reading = subprocess.Popen(["sha256sum", str(mounted / "f")], stdout=subprocess.PIPE)
        until(lambda: "it is asked again" in mounted.log.read_text(), "the origin to be missed")
        origin = ThreadedMotoServer(host, port, verbose=False)
        origin.start()
        out, _ = reading.communicate(timeout=60)
        origin.stop()
        assert out.split()[0].decode() == hashlib.sha256(body).hexdigest()
        mounted.close()


def test_a_file_that_changes_while_the_origin_is_read_directly(bucket, s3_mount, node):
    old, new = b"a" * (8 << 20), b"b" * (8 << 20)
    put(bucket, "big", old)
    mounted = s3_mount(mode="cached", read_ahead_kib=0, direct_after_s=0.5)
    with open(mounted / "big", "rb", buffering=0) as file:
        node.kill()
        assert file.read(1000) == b"a" * 1000
        put(bucket, "big", new)
        with pytest.raises(OSError) as caught:
            while chunk := file.read(1 << 20):
                assert set(chunk) == {ord("a")}
        assert caught.value.errno == errno.ESTALE
    assert digest(mounted / "big") == hashlib.sha256(new).hexdigest()


def test_files_that_the_mount_sees_are_read_while_the_server_is_away(mount, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("one", "two"):
        (tree / name).write_bytes(name.encode() * 50_000)
    settings = {"origins": [{"prefix": f"file://{tree}/"}], "free_space_floor": "64MiB"}
    with CacheProcess(str(tmp_path / "node"), settings) as node:
        mounted = mount(
            tmp_path, server="yes", uri=f"file://{tree}", address=node.address, direct_after_s=0.5
        )
        assert (mounted / "one").read_bytes() == b"one" * 50_000
        node.kill()
        assert (mounted / "two").read_bytes() == b"two" * 50_000
        mounted.close()


def test_real_programs(bucket, s3_mount, tmp_path):
    local = tmp_path / "local"
    local.mkdir()
    for i in range(20):
        (local / f"s{i}.bin").write_bytes(RND.randbytes(RND.randrange(200_000)))
    with tarfile.open(local / "all.tar", "w") as tar:
        for i in range(20):
            tar.add(local / f"s{i}.bin", f"s{i}.bin")
    with zipfile.ZipFile(local / "all.zip", "w") as pack:
        for i in range(20):
            pack.write(local / f"s{i}.bin", f"s{i}.bin")
    with sqlite3.connect(local / "db.sqlite") as db:
        db.execute("create table t (a integer primary key, b text)")
        db.executemany("insert into t values (?, ?)", [(i, "x" * i) for i in range(1000)])
    db.close()
    repo = local / "repo"

    script = (
        f"git init -q {repo} && cd {repo} && git config user.email a@b && git config user.name n &&"
        " for i in 1 2 3; do echo $i > f$i; git add .; git commit -qm $i; done &&"
        f" git clone -q --bare {repo} {local}/bare.git && rm -rf {repo}"
    )
    run(script, shell=True)
    for path in local.rglob("*"):
        if path.is_file():
            put(bucket, str(path.relative_to(local)), path.read_bytes())
        elif not any(path.iterdir()):  # git wants its empty directories
            put(bucket, f"{path.relative_to(local)}/", b"")

    mounted = s3_mount()
    with tarfile.open(mounted / "all.tar") as tar, zipfile.ZipFile(mounted / "all.zip") as pack:
        assert pack.testzip() is None
        for i in (3, 17, 0):
            body = (local / f"s{i}.bin").read_bytes()
            member = tar.extractfile(f"s{i}.bin")
            assert member is not None
            assert member.read() == body
            assert pack.read(f"s{i}.bin") == body
    db = sqlite3.connect(f"file:{mounted / 'db.sqlite'}?immutable=1", uri=True)
    assert db.execute("select sum(length(b)), count(*) from t").fetchone() == (499_500, 1000)
    db.close()
    clone = [
        "git",
        "-c",
        "safe.directory=*",
        "clone",
        "-q",
        str(mounted / "bare.git"),
        str(tmp_path / "c"),
    ]
    copied = tmp_path / "bare.git"
    run(["cp", "-r", str(mounted / "bare.git"), str(copied)])
    assert run(["diff", "-r", str(copied), str(mounted / "bare.git")]).stdout == b""
    run(clone)
    assert (tmp_path / "c" / "f3").read_text() == "3\n"
    assert (
        run(["diff", "-r", "-q", str(mounted / "db.sqlite"), str(local / "db.sqlite")]).stdout
        == b""
    )
