"""The promises that need real processes: kill -9, many readers, changes at the origin."""

import asyncio
import errno
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import hotshard
from integration.conftest import origin_bytes, origin_requests, sealed_shards
from support.content import content, digest

MIB = 1 << 20
pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
def test_kill_9_during_fills_loses_no_sealed_shard_and_corrupts_nothing(bucket, start_node):
    """SEMANTICS 8: kill -9 at any moment loses no sealed shard and corrupts nothing."""
    boto, name = bucket
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    sizes = [dice.choice([100 << 10, MIB, 3 * MIB + 17, 9 * MIB]) for _ in range(120)]
    objects = {}
    for i, size in enumerate(sizes):
        uri = f"s3://{name}/{i:03}"
        boto.put_object(Bucket=name, Key=f"{i:03}", Body=content(size, seed=i % 7))
        objects[uri] = digest(content(size, seed=i % 7))
    node = start_node(
        started=False,
        origins=[{"prefix": f"s3://{name}/", "immutable": True}],
        shard_bytes="4MiB",
        block_bytes="1MiB",
    )
    sealed = most_recovered = 0
    for _ in range(20):
        node.start()
        recovered = sealed_shards(node)
        assert recovered >= sealed
        most_recovered = max(most_recovered, recovered)
        with hotshard.connect(node.address) as cache:
            for uri in dice.sample(sorted(objects), 10):
                assert digest(cache.read(uri)) == objects[uri]
            cache.prefetch(dice.sample(sorted(objects), 60))
            time.sleep(dice.uniform(0, 0.15))  # the random moment
        sealed = sealed_shards(node)
        node.kill()
    node.start()
    assert sealed_shards(node) >= sealed
    with hotshard.connect(node.address) as cache:
        for uri, expected in objects.items():
            assert digest(cache.read(uri)) == expected
    assert most_recovered > 0


def test_32_readers_of_one_cold_object_are_one_read_of_the_origin(bucket, node):
    """SEMANTICS 5: each block is read from the origin once, however many ask for it at one time."""
    boto, name = bucket
    body = content(48 * MIB + 5)
    boto.put_object(Bucket=name, Key="cold", Body=body)
    start = threading.Barrier(32)

    def read(_: int) -> str:
        with hotshard.connect(node.address) as cache:
            start.wait()
            return digest(cache.read(f"s3://{name}/cold"))

    with ThreadPoolExecutor(32) as pool:
        assert set(pool.map(read, range(32))) == {digest(body)}
    assert origin_bytes(node) == len(body)


def test_small_objects_read_without_a_listing_cost_one_request_each(bucket, node):
    """And 32 readers of each are one reader to the origin."""
    boto, name = bucket
    bodies = {f"s3://{name}/small/{i}": content(50_000 + i, seed=i) for i in range(12)}
    for uri, body in bodies.items():
        boto.put_object(Bucket=name, Key=uri.removeprefix(f"s3://{name}/"), Body=body)
    start = threading.Barrier(32)

    def read(_: int) -> list[bool]:
        with hotshard.connect(node.address) as cache:
            start.wait()
            return [cache.read(uri) == body for uri, body in bodies.items()]

    with ThreadPoolExecutor(32) as pool:
        assert all(all(right) for right in pool.map(read, range(32)))
    assert origin_bytes(node) == sum(map(len, bodies.values()))
    assert origin_requests(node, "GET") == len(bodies)
    assert origin_requests(node, "HEAD") < len(bodies)


async def test_cancelled_readers_disturb_no_other(bucket, node):
    """SEMANTICS 5: cancelling one of several concurrent readers disturbs none of the others."""
    boto, name = bucket
    body = content(48 * MIB + 5)
    await asyncio.to_thread(boto.put_object, Bucket=name, Key="cold", Body=body)
    async with hotshard.aio.connect(node.address) as cache, asyncio.TaskGroup() as group:
        readers = [group.create_task(cache.read(f"s3://{name}/cold")) for _ in range(32)]
        dice = random.Random(3)
        for reader in dice.sample(readers, 16):
            await asyncio.sleep(dice.uniform(0, 0.01))
            reader.cancel()
        await asyncio.wait(readers)
        finished = [reader for reader in readers if not reader.cancelled()]
        assert len(finished) >= 16
        assert {digest(reader.result()) for reader in finished} == {digest(body)}
    assert await asyncio.to_thread(origin_bytes, node) == len(body)


@pytest.mark.parametrize("way", ["local", "grpc"])
def test_an_object_overwritten_half_way_is_stale_and_never_mixed(bucket, start_node, way):
    """SEMANTICS 1: a handle whose object changed fails with StaleObject and never mixes versions."""
    boto, name = bucket
    node = start_node(
        origins=[{"prefix": f"s3://{name}/"}], shard_bytes="1MiB", block_bytes="256KiB"
    )
    old, new = content(64 * MIB, 1), content(64 * MIB, 2)
    boto.put_object(Bucket=name, Key="k", Body=old)
    with hotshard.connect(node.address if way == "local" else node.grpc) as cache:
        file = cache.open(f"s3://{name}/k", buffering=0)
        got = bytearray()
        while len(got) < 8 * MIB:
            got += file.read(MIB)
        boto.put_object(Bucket=name, Key="k", Body=new)
        with pytest.raises(hotshard.StaleObject) as stale:
            while piece := file.read(MIB):
                got += piece
        assert stale.value.errno == errno.ESTALE
        assert got == old[: len(got)]
        assert cache.read(f"s3://{name}/k") == new


def waited_for_a_processor_s(pid: int | str = "self") -> float:
    """For how long others had the processors when a process could have run: that is no fault of ours."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[1]) / 1e9


def test_a_restart_serves_what_is_sealed_without_the_origin(bucket, start_node, s3):
    """SEMANTICS 8: a restart serves the sealed shards within seconds."""
    boto, name = bucket
    node = start_node(origins=[{"prefix": f"s3://{name}/"}])
    bodies = {f"s3://{name}/{i}": content(3 * MIB, i) for i in range(20)}
    for i, body in enumerate(bodies.values()):
        boto.put_object(Bucket=name, Key=str(i), Body=body)
    with hotshard.connect(node.address) as cache:
        assert cache.warm(f"s3://{name}/").resident_objects == 20
    node.kill()
    began, waited_s = time.monotonic(), waited_for_a_processor_s()
    node.start()
    with hotshard.connect(node.address) as cache:
        for uri, body in bodies.items():
            assert cache.read(uri) == body
    waited_s = waited_for_a_processor_s() - waited_s + waited_for_a_processor_s(node.pid)
    assert time.monotonic() - began - waited_s < 10
    assert origin_bytes(node) == 0


def test_sigterm_finishes_what_is_under_way_and_stops_clean(bucket, node):
    boto, name = bucket
    body = content(40 * MIB)
    boto.put_object(Bucket=name, Key="k", Body=body)
    with hotshard.connect(node.address) as cache:
        cache.read(f"s3://{name}/k", 0, 10)
        node.stop()
        assert node.exit_code == 0
        node.start()
        assert cache.read(f"s3://{name}/k") == body


def test_a_warm_up_of_more_than_fits_tells_the_truth(bucket, start_node, tmp_path):
    """SEMANTICS 10: a warm-up reports what is resident at its end, not what was fetched once."""
    boto, name = bucket
    for i in range(12):
        boto.put_object(Bucket=name, Key=f"d/{i}", Body=content(MIB, i))
    node = start_node(
        origins=[{"prefix": f"s3://{name}/"}],
        cache_dirs=[{"path": str(tmp_path / "small"), "capacity_bytes": "6MiB"}],
        shard_bytes="1MiB",
        block_bytes="1MiB",
    )
    with hotshard.connect(node.address) as cache:
        report = cache.warm(f"s3://{name}/d/")
        assert report.planned_objects == 12
        assert report.resident_objects == sealed_shards(node) < 12
        assert not report.complete
