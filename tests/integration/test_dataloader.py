"""PyTorch's own DataLoader, with forked and with spawned workers, over a real server and a real S3."""

import io
import json
import random
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import xxhash

from integration.conftest import origin_bytes

TESTS = str(Path(__file__).parents[1])


def tar_of(members: dict[str, bytes]) -> bytes:
    """A tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    return out.getvalue()


@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_workers_read_every_sample_once_an_epoch(node, bucket, method):
    boto, name = bucket
    rng = random.Random(5)
    objects = {f"{i:03}.bin": rng.randbytes(rng.randrange(1, 90_000)) for i in range(60)}
    members = {f"s{shard}-{i}": rng.randbytes(5000) for shard in range(4) for i in range(10)}
    shards = [
        tar_of({k: v for k, v in members.items() if k.startswith(f"s{shard}-")})
        for shard in range(4)
    ]
    for key, body in objects.items():
        boto.put_object(Bucket=name, Key=f"train/{key}", Body=body)
    for number, body in enumerate(shards):
        boto.put_object(Bucket=name, Key=f"train/{number}.tar", Body=body)
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "support.train",
            node.address,
            method,
            f"s3://{name}/train/",
            "2",
        ],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    epochs = [[tuple(sample) for sample in json.loads(line)] for line in ran.stdout.splitlines()]
    expected = sorted(
        (key, len(body), xxhash.xxh3_64_hexdigest(body))
        for key, body in (objects | members).items()
    )
    assert [sorted(epoch) for epoch in epochs] == [expected, expected]
    assert epochs[0] != epochs[1]  # shuffled anew
    assert origin_bytes(node) == sum(map(len, [*objects.values(), *shards]))  # each read once
