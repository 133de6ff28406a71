"""peers.*: hot objects by hotshard's client, beside what else people read objects of a bucket with.

The limit is the best of the others: S3 clients on the bucket itself, nginx as a caching proxy in front of
it, Redis with all objects in memory. Each runs in a process of its own with 32 requests in flight, has read
some objects before, and its server has seen all of them. Ours is one thread without anything in flight,
and its client holds no lease yet. Plain files, read by one thread, are in the record too.

Sizes are such that everything stays in the page cache, or in Redis' memory.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager

from benchmarks import engine_peers, engines, services
from benchmarks.bench import Bench, Row, Scale, Side, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.engines import Load
from benchmarks.results import Measured
from benchmarks.rows.scene import Hot, Remote, connect, in_s3, warm

_MIB = 1 << 20
_IN_FLIGHT = 32
_HELD_BYTES = 8 * _MIB
_CHECKED = 16
_DIRECT = ("obstore", "awscrt", "aiobotocore", "boto3", "s3fs")


@contextmanager
def _open(bench: Bench, data: DataSet) -> Iterator[Sides]:
    with ExitStack() as stack:
        remote = stack.enter_context(in_s3(bench.directory, data))
        node = stack.enter_context(remote.cold_node())
        client = stack.enter_context(connect(node))
        warm(client, remote.place)
        hot = Hot(node, remote.place, client)
        paths = [hot.cached_path(index) for index in range(data.count)]
        yield Sides(
            ours=lambda: _ours(hot, bench),
            limits=_others(stack, bench, remote),
            peers={"plain files": lambda: _files(paths, data)},
        )


def _ours(hot: Hot, bench: Bench) -> Measured:
    data, uris = hot.data, hot.place.uris()
    with closing(connect(hot.node)) as client:  # one that holds no lease yet
        client.check()
        read_many = bench.sabotage.wrap_bytes(client.read_many)
        with Cost({"server": hot.node.pid}) as cost:
            for batch in _batches(uris, data):
                read_many(batch)
        for index, body in enumerate(read_many(uris[:_CHECKED])):
            data.check(index, 0, data.object_bytes, body)
    return _measured(cost, data)


def _files(paths: Sequence[str], data: DataSet) -> Measured:
    with Cost() as cost:
        for path in paths:
            fd = os.open(path, os.O_RDONLY)
            os.pread(fd, data.object_bytes, 0)
            os.close(fd)
    return _measured(cost, data)


def _others(stack: ExitStack, bench: Bench, remote: Remote) -> dict[str, Side]:
    environment = dict(remote.server.environment)
    sides = {name: _side(remote, name, environment) for name in _DIRECT if _importable(name)}
    if bench.scale is Scale.TINY:
        return {"obstore": sides["obstore"]}
    if services.installed("nginx"):
        inside = os.path.join(bench.directory, "nginx")
        proxy = stack.enter_context(services.nginx(remote.server.endpoint_url, inside))
        through = {**environment, "AWS_ENDPOINT_URL_S3": proxy}
        sides["nginx"] = _side(remote, "whole", through)
        sides["nginx"]()  # fills it
    else:
        _skip("nginx", "not installed")
    if services.installed("redis-server") and _importable("redis"):
        url = stack.enter_context(services.redis(os.path.join(bench.directory, "redis")))
        _fill(url, remote)
        sides["redis"] = _side(remote, "redis", {**environment, engine_peers.REDIS_URL: url})
    else:
        _skip("redis", "redis-server or the package redis is not installed")
    return sides


def _side(remote: Remote, engine: str, environment: Mapping[str, str]) -> Side:
    data = remote.place.data
    load = Load(
        remote.bucket, tuple(remote.keys()), data.object_bytes, data.object_bytes, _IN_FLIGHT
    )

    def side() -> Measured:
        figure = engines.measure(engine, load, dict(environment))
        cost = Cost(seconds=figure.seconds, cpu_s={"client": figure.cpu_s})
        return _measured(cost, data)

    return side


def _fill(url: str, remote: Remote) -> None:
    from redis import Redis

    with closing(Redis.from_url(url)) as client:
        data = remote.place.data
        for index, key in enumerate(remote.keys()):
            client.set(key, data.content(index, 0, data.object_bytes))


def _measured(cost: Cost, data: DataSet) -> Measured:
    """Large objects count in GB, small ones singly."""
    rate = data.total_bytes / 1e9 if data.object_bytes >= _MIB else data.count
    return Measured(
        rate / cost.seconds, cost.seconds, data.total_bytes, data.count, dict(cost.cpu_s)
    )


def _batches(names: Sequence[str], data: DataSet) -> list[Sequence[str]]:
    """Small objects together, large ones one by one: what is held at one time is always 8 MiB."""
    count = max(1, _HELD_BYTES // data.object_bytes)
    return [names[start : start + count] for start in range(0, len(names), count)]


def _importable(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        _skip(name, "not installed")
        return False
    return True


def _skip(name: str, reason: str) -> None:
    sys.stderr.write(f"  {name}: skipped, {reason}\n")


def _objects(bench: Bench) -> AbstractContextManager[Sides]:
    count = bench.pick(full=2000, quick=500, tiny=20)
    return _open(bench, DataSet(bench.seed, count, 100 << 10))


def _large_objects(bench: Bench) -> AbstractContextManager[Sides]:
    count = bench.pick(full=64, quick=16, tiny=2)
    return _open(bench, DataSet(bench.seed, count, 8 * _MIB))


ROWS = (
    Row(
        "peers.small",
        "hot objects of 100 KiB, beside S3 clients, nginx and Redis",
        "objects/s",
        2.0,
        _objects,
        quick=False,
        budget_s=80.0,
    ),
    Row(
        "peers.large",
        "hot objects of 8 MiB, beside S3 clients, nginx and Redis",
        "GB/s",
        2.0,
        _large_objects,
        quick=False,
        budget_s=60.0,
    ),
)
