"""Whatever comes in, the server answers with a typed error (or works), stays up, and loses nothing."""

import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import closing

import boto3
import pytest
from moto.server import ThreadedMotoServer

import hotshard
from hotshard.cli.cache_process import CacheProcess
from hotshard.v1 import local_pb2, types_pb2
from integration.conftest import origin_bytes
from support import s3 as support_s3
from support.content import content
from support.waiting import LIMIT_S, until

KIB = 1 << 10


@pytest.fixture(scope="module")
def odd_s3():
    """moto keeps keys that SeaweedFS folds or refuses: "//", "..", 1,024 bytes."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def shared(s3, odd_s3, tmp_path_factory):
    """One server for the tests that leave it as it was."""
    boto = support_s3.client(s3)
    name = support_s3.new_bucket(boto)
    origins = [
        {"prefix": f"s3://{name}/", "metadata_ttl_s": 0},
        {"prefix": "s3://odd-names/", "endpoint_url": odd_s3, "addressing": "path"},
    ]
    directory = str(tmp_path_factory.mktemp("bad"))
    with CacheProcess(directory, {"origins": origins, "free_space_floor": "64MiB"}) as node:
        yield node, boto, name


@pytest.fixture
def node(shared):
    return shared[0]


@pytest.fixture
def bucket(shared):
    return shared[1:]


@pytest.fixture(params=["local", "grpc"])
def cache(request, node):
    with hotshard.connect(node.address if request.param == "local" else node.grpc) as cache:
        yield cache


@pytest.fixture
def good(bucket):
    boto, name = bucket
    boto.put_object(Bucket=name, Key="good", Body=b"good bytes")
    return f"s3://{name}/good"


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("ftp://host/file", hotshard.InvalidRequest),
        ("no uri at all", hotshard.InvalidRequest),
        ("", hotshard.InvalidRequest),
        ("s3://{bucket}/a\0b", hotshard.InvalidRequest),
        ("s3://{bucket}/" + "k" * 1025, hotshard.InvalidRequest),
        ("s3://another-bucket/key", hotshard.PermissionDenied),
        ("file:///etc/passwd", hotshard.PermissionDenied),
        ("s3://{bucket}/missing", hotshard.NotFound),
        ("s3://{bucket}/dir", hotshard.NotFound),
        ("s3://{bucket}/dir/", hotshard.NotFound),
        ("s3://{bucket}/", hotshard.InvalidRequest),
    ],
)
def test_bad_addresses_are_refused_with_their_type(cache, bucket, good, uri, error):
    boto, name = bucket
    boto.put_object(Bucket=name, Key="dir/inside", Body=b"x")
    uri = uri.replace("{bucket}", name)
    for call in (cache.stat, cache.read, lambda u: cache.open(u).read()):
        with pytest.raises(error):
            call(uri)
    assert cache.read(good) == b"good bytes"


@pytest.mark.parametrize(
    "key",
    [
        "with spaces in it",
        "ünïcödé/日本語/🙂",
        "../up/../and/./down",
        "a//b///c",
        "percent%20plus+and?query#fragment",
        "k" * 1024,
        "é" * 512,
        "quote'\"<>&;",
        "tilde~*()!",
    ],
)
def test_odd_keys_work(cache, odd_s3, key):
    boto = boto3.client("s3", endpoint_url=odd_s3, region_name="us-east-1")
    boto.create_bucket(Bucket="odd-names")
    body = content(10 * KIB, 4)
    boto.put_object(Bucket="odd-names", Key=key, Body=body)
    uri = f"s3://odd-names/{key}"
    assert cache.read(uri) == body
    assert cache.stat(uri).size == len(body)
    assert uri in [entry.uri for entry in cache.list(uri[:40])]


def test_ranges_at_and_beyond_the_ends(cache, bucket):
    boto, name = bucket
    body = content(10 * KIB)
    boto.put_object(Bucket=name, Key="k", Body=body)
    boto.put_object(Bucket=name, Key="empty", Body=b"")
    uri = f"s3://{name}/k"
    assert cache.read(uri, 10 * KIB) == b""
    assert cache.read(uri, 1 << 60) == b""
    assert cache.read(uri, 10 * KIB - 3, 100) == body[-3:]
    assert cache.read(uri, 5, 0) == b""
    for bad in ((-1, 10), (0, -5)):
        with pytest.raises(hotshard.InvalidRequest):
            cache.read(uri, *bad)
    assert cache.read(f"s3://{name}/empty") == b""
    assert cache.open(f"s3://{name}/empty").read() == b""
    assert cache.stat(f"s3://{name}/empty").size == 0


def raw_connection(node):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(LIMIT_S)
    connection.connect(node.socket)
    return closing(connection)


@pytest.mark.parametrize("length", [1, 100, 60_000, 150_000])
def test_garbage_on_the_local_socket_is_told_so_and_disconnected(node, good, length):
    dice = random.Random(length)
    for _ in range(20):
        with raw_connection(node) as connection:
            connection.send(b"\xff" + dice.randbytes(length))
            reply = local_pb2.LocalReply.FromString(connection.recv(1 << 16))
            assert reply.error.message
            assert connection.recv(1) == b""
    with hotshard.connect(node.address) as cache:
        assert cache.read(good) == b"good bytes"


def test_clients_that_connect_and_say_nothing_disturb_nobody(node, good):
    with raw_connection(node), raw_connection(node), hotshard.connect(node.address) as cache:
        assert cache.read(good) == b"good bytes"


def test_a_client_that_asks_and_never_reads_its_answers_disturbs_nobody(node, good):
    ask = local_pb2.LocalRequest(open=local_pb2.OpenRequest(uri=good, length=10))
    with raw_connection(node) as connection, hotshard.connect(node.address) as cache:
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            for number in range(100_000):
                ask.id = number
                connection.send(ask.SerializeToString())
        assert cache.read(good) == b"good bytes"
        assert len(os.listdir(f"/proc/{node.pid}/fd")) < 2000


def test_absurd_values_on_the_local_socket_are_answered(node, good):
    requests = [
        local_pb2.LocalRequest(
            open=local_pb2.OpenRequest(uri=good, offset=2**64 - 1, length=2**64 - 1)
        ),
        local_pb2.LocalRequest(open=local_pb2.OpenRequest(uri=good, length=2**64 - 1)),
        local_pb2.LocalRequest(
            open_many=local_pb2.OpenManyRequest(
                opens=[local_pb2.OpenRequest(uri=good, length=1)] * 1000
            )
        ),
        local_pb2.LocalRequest(stat_many=types_pb2.StatManyRequest(uris=[good] * 5000)),
        local_pb2.LocalRequest(list=types_pb2.ListRequest(prefix=good, page_token="nonsense")),
        local_pb2.LocalRequest(warm_status=types_pb2.WarmStatusRequest(job_id="none")),
        local_pb2.LocalRequest(timeout_ms=1, stat=types_pb2.StatRequest(uri=good)),
    ]
    with raw_connection(node) as connection:
        for number, request in enumerate(requests, 1):
            request.id = number
            connection.send(request.SerializeToString())
            reply = local_pb2.LocalReply.FromString(connection.recv(1 << 18))
            assert reply.id == number
            assert reply.WhichOneof("result")


def run_server(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cache_server", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={**os.environ, **environment},
    )


def test_without_the_extra_it_says_what_to_install():
    without = "import runpy, sys; sys.modules['uvloop'] = None; "
    program = without + "runpy.run_module('cache_server', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "hotshard: the server is not installed: pip install 'hotshard[server]'\n"
    )


def test_a_configuration_with_three_mistakes_names_all_three(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text(
        "origins:\n  - prefix: ftp://x/\ngrpc:\n  listen: nowhere\nshard_byte: 1GiB\n"
    )
    done = run_server("--config", str(config))
    assert done.returncode == 2
    for key in ("origins.0.prefix", "grpc.listen", "shard_byte"):
        assert key in done.stderr
    assert "3 mistakes" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_or_socket_in_use_is_said(node, start_node, tmp_path):
    places = {
        "grpc.listen": ("--grpc-listen", node.grpc),
        "admin.listen": ("--admin-listen", node.admin),
        "local_socket.path": ("--socket", node.socket),
        "cache": ("--cache-dir", node.cache_dir),
    }
    for key, taken in places.items():
        rest = {
            "--grpc-listen": "127.0.0.1:0",
            "--admin-listen": "127.0.0.1:0",
            "--socket": str(tmp_path / "s2"),
            "--cache-dir": str(tmp_path / "c2"),
        } | {taken[0]: taken[1]}
        done = run_server(*(word for pair in rest.items() for word in pair))
        assert done.returncode == 2, done.stderr
        assert key in done.stderr
        assert taken[1] in done.stderr
        assert "Traceback" not in done.stderr
    assert node.ready()


def test_told_to_stop_while_it_looks_for_its_members_it_stops(start_node):
    nobody = {"provider": "dns", "service": "nobody.invalid", "start_wait_s": 90}
    node = start_node(started=False, cluster=nobody)
    node.launch()
    until(lambda: "nobody.invalid" in node.log_tail(), "the look-up")
    os.kill(node.pid, signal.SIGTERM)
    until(lambda: node.exit_code is not None, "the end")
    assert node.exit_code == 0


def test_an_unreadable_cache_dir_is_left_out_and_reads_go_on(start_node, bucket, tmp_path):
    boto, name = bucket
    boto.put_object(Bucket=name, Key="k", Body=content(3 << 20))
    (tmp_path / "file").write_text("a file, not a directory")
    node = start_node(
        origins=[{"prefix": f"s3://{name}/"}],
        cache_dirs=[{"path": str(tmp_path / "file" / "x")}, {"path": str(tmp_path / "good")}],
    )
    with hotshard.connect(node.address) as cache:
        assert cache.read(f"s3://{name}/k") == content(3 << 20)
        states = sorted(disk.state for disk in cache.status().disks)
    assert len(states) == 2
    assert states.count("ready") == 1


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 24 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(place)],
        check=False,
        capture_output=True,
    )
    if mount.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mount.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_costs_speed_only(start_node, bucket, tiny_disk):
    """SEMANTICS 7: ENOSPC means bypass, never an error for the reader."""
    boto, name = bucket
    body = content(40 << 20)
    boto.put_object(Bucket=name, Key="big", Body=body)
    boto.put_object(Bucket=name, Key="small", Body=body[: 100 * KIB])
    node = start_node(
        origins=[{"prefix": f"s3://{name}/"}],
        cache_dirs=[{"path": str(tiny_disk / "cache"), "capacity_bytes": "100%"}],
        free_space_floor="0%",
    )
    with hotshard.connect(node.address) as cache:
        assert cache.read(f"s3://{name}/big") == body
        # Somebody else fills the disk to the last byte.
        with open(tiny_disk / "other", "wb") as other, pytest.raises(OSError, match="No space"):
            while True:
                other.write(bytes(1 << 20))
                other.flush()
        assert cache.read(f"s3://{name}/small") == body[: 100 * KIB]
        assert cache.read(f"s3://{name}/big") == body
        os.unlink(tiny_disk / "other")
    assert node.ready()
    assert origin_bytes(node) >= len(body)
