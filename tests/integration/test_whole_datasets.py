"""Large and many objects through every way in, cold and hot, byte-equal to the origin.

HOTSHARD_TEST_SCALE=1 is the full size (a 1 GiB object and 10,000 of 100 KiB); the default is 1/16 of it.
"""

import hashlib
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import hotshard
from integration.conftest import origin_bytes
from support.content import content, digest

SCALE = float(os.environ.get("HOTSHARD_TEST_SCALE", "0.0625"))
BIG_BYTES = int((1 << 30) * SCALE) + 12_345
SMALL_COUNT = int(10_000 * SCALE)
SMALL_BYTES = 100 << 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def dataset(bucket):
    """(uri, digest) of each object, as the origin has them: the big one first."""
    boto, name = bucket
    names = ["big.bin"] + [f"small/{i:05}.bin" for i in range(SMALL_COUNT)]

    def put(i: int) -> tuple[str, str]:
        body = content(BIG_BYTES if i == 0 else SMALL_BYTES, seed=0)
        body = body if i == 0 else i.to_bytes(8, "little") + body[8:]
        boto.put_object(Bucket=name, Key=names[i], Body=body)
        return f"s3://{name}/{names[i]}", digest(body)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(put, range(len(names))))


def through_client(address, dataset):
    """Digest of each object, the small ones in a shuffled order by read_many."""
    found = {}
    with hotshard.connect(address) as cache:
        big = dataset[0][0]
        state = hashlib.blake2b(digest_size=16)
        with cache.open(big, buffering=0) as file:
            buffer = bytearray(1 << 20)
            while size := file.readinto(buffer):
                state.update(memoryview(buffer)[:size])
        found[big] = state.hexdigest()
        uris = [uri for uri, _ in dataset[1:]]
        random.Random(7).shuffle(uris)
        for at in range(0, len(uris), 256):
            batch = uris[at : at + 256]
            found.update(zip(batch, map(digest, cache.read_many(batch)), strict=True))
    return found


@pytest.mark.parametrize("way", ["local", "grpc"])
def test_cold_and_hot_through_the_client(node, dataset, way):
    """SEMANTICS 1: every byte returned equals the origin's byte."""
    address = node.address if way == "local" else node.grpc
    assert through_client(address, dataset) == dict(dataset)
    cold = origin_bytes(node)
    assert cold == BIG_BYTES + SMALL_COUNT * SMALL_BYTES
    assert through_client(address, dataset) == dict(dataset)
    assert origin_bytes(node) == cold


def test_cold_and_hot_through_the_command_line(node, dataset, tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "hotshard.cli", "--address", node.address, *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    big, big_digest = dataset[0]
    prefix = dataset[1][0].rpartition("/")[0] + "/"
    for turn in ("cold", "hot"):
        assert digest(run("cat", big)) == big_digest
        target = tmp_path / turn
        run("cp", "-r", prefix, str(target))
        copied = {path.name: digest(path.read_bytes()) for path in target.rglob("*.bin")}
        assert copied == {uri.rpartition("/")[2]: d for uri, d in dataset[1:]}
    assert origin_bytes(node) == BIG_BYTES + SMALL_COUNT * SMALL_BYTES
