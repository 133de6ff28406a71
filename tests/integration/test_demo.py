"""`hotshard demo` as a user runs it: the figures, and that nothing is left, however it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hotshard.cli import demo_data, demo_reader

DEMO = [sys.executable, "-m", "hotshard.cli", "demo", "--small"]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def environment(tmp_path):
    """Variables for the demo, among them things that must not disturb it."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {
        **ours,
        "TMPDIR": str(tmp_path),
        "AWS_PROFILE": "one-that-is-not-there",
        "http_proxy": "http://127.0.0.1:9",
        "HOTSHARD_CACHE_DIRS": "nonsense",
    }


def processes_in(directory: Path) -> list[str]:
    """Command lines of processes that work in, or on files of, a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if str(directory) in line:
            found.append(line)
    return found


def test_the_demo_shows_the_main_job_and_leaves_nothing(environment, tmp_path):
    done = subprocess.run(
        [*DEMO, "--json"], check=True, capture_output=True, text=True, env=environment
    )
    document = json.loads(done.stdout)
    cold, hot, direct = document["passes"]
    assert [each["wrong"] for each in (cold, hot, direct)] == [[], [], []]
    assert cold["bytes"] == hot["bytes"] == direct["bytes"] == document["bytes"]
    assert cold["origin_bytes"] == document["bytes"]
    assert (hot["origin_bytes"], hot["origin_gets"], hot["hit_ratio"]) == (0, 0, 1.0)
    assert (list(tmp_path.iterdir()), processes_in(tmp_path)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_kept_up_it_can_be_used_until_it_is_told_to_end(environment, tmp_path, number):
    with subprocess.Popen(
        [*DEMO, "--keep"], stdout=subprocess.PIPE, text=True, env=environment
    ) as demo:
        assert demo.stdout
        told = {}
        for line in demo.stdout:
            name, _, value = line.strip().removeprefix("export ").partition("=")
            told[name] = value
            if line.strip() == "EOF":
                break
        address = told["HOTSHARD_ADDRESS"]
        command = [sys.executable, "-m", "hotshard.cli", "--address", address, "ls", "-r"]
        listed = subprocess.run(
            [*command, "s3://demo/train/"], check=True, capture_output=True, text=True
        )
        assert len(listed.stdout.splitlines()) == 44
        demo.send_signal(number)
        assert demo.wait() == 130
    assert (list(tmp_path.iterdir()), processes_in(tmp_path)) == ([], [])


def test_interrupted_half_way_it_leaves_nothing(environment, tmp_path):
    with subprocess.Popen(DEMO, stdout=subprocess.PIPE, text=True, env=environment) as demo:
        assert demo.stdout
        assert "S3 server" in demo.stdout.readline()
        demo.send_signal(signal.SIGTERM)
        assert demo.wait() == 130
    assert (list(tmp_path.iterdir()), processes_in(tmp_path)) == ([], [])


def test_the_dataset_is_the_same_everywhere():
    first, last = demo_data.samples()[0], demo_data.samples()[-1]
    assert (first.key, first.size) == ("train/shard-00000.tar", 64 << 20)
    assert last.content()[:8].hex() == "75824b61c172f5e2"
    assert sum(sample.size for sample in demo_data.samples()) == 4 * (64 << 20) + 2500 * (100 << 10)


@pytest.mark.parametrize("readers", [1, 2, 3])
def test_readers_share_an_epoch_without_gap_or_overlap(readers):
    plan = demo_data.samples(2, 1 << 20, 50)
    parts = [demo_reader.part_of(plan, 1, index, readers) for index in range(readers)]
    assert sorted(s.key for part in parts for s in part) == sorted(s.key for s in plan)
    assert demo_reader.part_of(plan, 2, 0, readers) != parts[0]


def test_batches_keep_the_order():
    plan = demo_data.samples(2, 64 << 20, 200)
    batches = list(demo_reader.batches(plan))
    assert [sample for batch in batches for sample in batch] == plan
    assert max(len(batch) for batch in batches) == demo_reader.BATCH


def test_a_wrong_byte_is_noticed():
    result = demo_reader.Result()
    sample = demo_data.Sample("k", 3, "right")
    result.check(sample, 3, "right")
    result.check(sample, 3, "wrong")
    result.check(sample, 2, "right")
    assert result.objects == 3
    assert result.wrong == ["s3://demo/k", "s3://demo/k"]
