"""scale.index: what a million cached shards cost the server: time to come back up, and memory.

The records are real, the shard files are not there: after a clean stop the server does not look at them.
It is the whole program that is measured, from its exec to its answer on /readyz.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from benchmarks import index_scale
from benchmarks.bench import Bench, Row, Sides, constant
from benchmarks.cost import peak_rss_bytes, process_cpu_s, rss_bytes
from benchmarks.node import Node, cache_node
from benchmarks.results import Fact, Measured, WrongBytes
from benchmarks.rows.scene import connect
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better

_MILLION = 1_000_000
_START_LIMIT_S = 10.0
_START_LIMIT_LEAST_S = 2.0  # a start has a part that does not grow with the shards
_RAM_LIMIT_BYTES = 400.0


@contextmanager
def _open_start(bench: Bench) -> Iterator[Sides]:
    shards = _shards(bench)
    limit_s = max(_START_LIMIT_LEAST_S, _START_LIMIT_S * shards / _MILLION)
    cache_dir = _written(bench, shards)

    def ours() -> Measured:
        with ExitStack() as stack:
            start = bench.sabotage.wrap(stack.enter_context)
            begun = time.perf_counter()
            node = start(_node(bench, cache_dir))
            seconds = time.perf_counter() - begun
            cpu_s = process_cpu_s(node.pid)
            _check(node, shards)
        return Measured(seconds, seconds, cpu_s={"server": cpu_s})

    yield Sides(ours=ours, limits={"the limit set": constant(limit_s)})


@contextmanager
def _open_ram(bench: Bench) -> Iterator[Sides]:
    shards = _shards(bench)
    cache_dir = _written(bench, shards)

    def ours() -> Measured:
        with _node(bench, os.path.join(bench.directory, "none")) as empty:
            bare = rss_bytes(empty.pid)
        with _node(bench, cache_dir, spoiled=bench.sabotage) as node:
            grown = rss_bytes(node.pid) - bare
            peak = peak_rss_bytes(node.pid) - bare
            _check(node, shards)
        facts: dict[str, Fact] = {"per_shard_at_peak": peak / shards, "bare_bytes": bare}
        return Measured(grown / shards, facts=facts)

    yield Sides(ours=ours, limits={"the limit set": constant(_RAM_LIMIT_BYTES)})


def _shards(bench: Bench) -> int:
    return bench.pick(full=_MILLION, quick=_MILLION // 10, tiny=2000)


def _written(bench: Bench, shards: int) -> str:
    """A cache directory with the records of so many shards; with FLIP, some are missing.

    It takes longer to write than to measure, so the rows of a run share one.
    """
    missing = 10 * _scrubbed(shards) if bench.sabotage is Sabotage.FLIP else 0
    cache_dir = os.path.join(bench.shared_directory, f"index-{shards - missing}")
    if not os.path.exists(cache_dir):
        os.mkdir(cache_dir)
        index_scale.write_records(cache_dir, shards - missing, clean=True)
    return cache_dir


def _scrubbed(shards: int) -> int:
    """How many records the scrub may already have found to have no file."""
    return max(10, shards // 1000)


def _node(
    bench: Bench, cache_dir: str, *, spoiled: Sabotage = Sabotage.NONE
) -> AbstractContextManager[Node]:
    """A server over a cache directory that outlives it."""
    directory = os.path.join(tempfile.mkdtemp(dir=bench.directory), "node")
    space = {"path": cache_dir, "capacity_bytes": "1PiB"}
    origin = {"prefix": "s3://training-data/", "anonymous": True}
    return cache_node(directory, [origin], spoiled=spoiled, cache_dirs=[space])


def _check(node: Node, shards: int) -> None:
    with connect(node) as client:
        found = sum(disk.sealed_shards for disk in client.status().disks)
    if not shards - _scrubbed(shards) <= found <= shards:
        raise WrongBytes(f"{found} shards came back of {shards}")


ROWS = (
    Row(
        "scale.index_start",
        "start of the server over the records of 1,000,000 shards",
        "s",
        1.0,
        _open_start,
        better=Better.LOWER,
        warm_up=False,
        budget_s=75.0,
    ),
    Row(
        "scale.index_ram",
        "memory of the server for each of 1,000,000 shards",
        "B",
        1.0,
        _open_ram,
        better=Better.LOWER,
        warm_up=False,
        sabotages=(Sabotage.FLIP, Sabotage.FAT),
        quick=False,
        budget_s=32.0,
    ),
)
