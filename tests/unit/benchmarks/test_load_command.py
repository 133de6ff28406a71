"""`python -m benchmarks load` and `data`, as a user calls them, against real targets."""

import json
import os

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.bench import Bench
from benchmarks.data import DataSet
from benchmarks.load.command import WORKLOADS
from benchmarks.load.finding import Way
from benchmarks.load.objects import Found
from benchmarks.results import WrongBytes
from benchmarks.rows.mount import available, mounted
from benchmarks.rows.scene import in_s3

SEED = 5
SHORT = ("--seconds", "0.1", "--warm-up", "0", "--data-seed", str(SEED))


def call(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def files(tmp_path):
    assert (
        call("data", tmp_path / "d", "--objects", 4, "--size", "64KiB", "--seed", SEED).exit_code
        == 0
    )
    return tmp_path / "d"


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_workload_runs_and_says_what_it_saw(files, tmp_path, workload):
    taken = tmp_path / "out.json"
    done = call("load", files, "--target", "files", "--workload", workload, "--json", taken, *SHORT)
    assert done.exit_code == 0, done.output
    document = json.loads(taken.read_text())
    (run,) = document["runs"]
    assert document["format"] == "hotshard-load/1"
    assert run["gb_per_s"] > 0
    assert list(run["latency_ns"]) == ["p50", "p90", "p99", "p99.9"]
    assert ("neighbours_gb_per_s" in run["facts"]) == (workload == "mixed")


def test_a_rate_that_cannot_be_kept_is_said(files):
    done = call("load", files, "--target", "files", "--rate", 10**7, *SHORT)
    assert "did not keep up" in done.output


def test_a_wrong_byte_fails_the_load(files):
    path = files / DataSet(SEED, 4, 1).name(2)
    with open(path, "r+b") as file:
        file.seek(1000)
        file.write(b"!")
    done = call("load", files, "--target", "files", "--workload", "sequential", *SHORT)
    assert (done.exit_code, "not what was written" in done.output) == (1, True)


def test_of_unknown_data_the_length_is_checked():
    found = Found(["/x"], [10])
    found.check(0, 4, 100, b"123456")
    with pytest.raises(WrongBytes, match="5 of 6 bytes"):
        found.check(0, 4, 100, b"12345")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "--target", "files"), "not a directory"),
        (("s3://b/k/", "--target", "bulk", "--address", "/nowhere"), "/nowhere"),
        (("not-a-bucket", "--target", "s3"), "s3://"),
        (("s3://b/k/", "--address", "/nowhere"), "no cache server"),
    ],
)
def test_what_cannot_be_reached_is_one_line(arguments, said, monkeypatch):
    monkeypatch.delenv("HOTSHARD_ADDRESS", raising=False)
    done = call("load", *arguments)
    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_data_that_is_not_ours_is_not_taken_for_ours(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    done = call("load", tmp_path, "--target", "files", *SHORT)
    assert "was not written by" in done.output


@pytest.mark.slow
def test_every_target_takes_a_load(tmp_path, monkeypatch):
    data = DataSet(SEED, 4, 256 << 10)
    with in_s3(str(tmp_path), data) as remote, remote.cold_node() as node:
        for name, value in remote.server.environment.items():
            monkeypatch.setenv(name, value)
        prefix = remote.place.prefix
        calls = {
            Way.LOCAL: (f"{prefix}0000/", "--address", node.socket),
            Way.GRPC: (prefix, "--address", node.grpc),
            Way.BULK: (prefix, "--address", node.socket, "--bulk", node.bulk),
            Way.S3: (prefix,),
            Way.FILES: (str(tmp_path / "copy"),),
        }
        assert call("data", tmp_path / "copy", "--objects", 4, "--size", 262144, "--seed", SEED)
        assert (
            call("data", f"{prefix}more/", "--objects", 1, "--size", 1, "--seed", SEED).exit_code
            == 0
        )
        for way, arguments in calls.items():
            done = call("load", *arguments, "--target", way, "--seconds", "0.1", "--warm-up", "0")
            assert done.exit_code == 0, (way, done.output)
        if available():
            with mounted(Bench(str(tmp_path)), node, prefix, "auto") as target:
                done = call("load", os.path.join(target, "0000"), "--target", Way.MOUNT, *SHORT)
                assert done.exit_code == 0, done.output
