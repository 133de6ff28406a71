"""epoch.hit: shuffled epochs through a real server with a real cache directory, at several sizes of it.

A hit is a byte that was read and that the origin did not have to send. The limit is c, the cached fraction.
After the first epoch nothing may be written to the cache directory any more; if something is, the row's
value is at most what was not written of what was read. Memory for what is not kept is a few blocks, so that
it cannot stand in for the disk. The row's value is the worst over all sizes.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import hotshard
from benchmarks.bench import Bench, Row, Sides, constant
from benchmarks.data import DataSet
from benchmarks.load.objects import Place
from benchmarks.node import Node, cache_node
from benchmarks.results import Fact, Measured
from benchmarks.rows.scene import connect
from benchmarks.sabotage import Sabotage

_MIB = 1 << 20
_FRACTIONS = (0.1, 0.25, 0.5, 0.9)
_EPOCHS = 4
_SEALED = "hotshard_sealed_bytes_total"
_RECEIVED = "hotshard_origin_received_bytes_total"


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    object_bytes = bench.pick(full=_MIB, quick=_MIB, tiny=64 << 10)
    data = DataSet(bench.seed, bench.pick(full=400, quick=200, tiny=100), object_bytes)
    origin = os.path.join(bench.directory, "origin")
    data.write(origin)
    place = Place(data, f"file://{origin}/")
    yield Sides(ours=lambda: _all_sizes(bench, place), limits={"c": constant(1.0)})


def _all_sizes(bench: Bench, place: Place) -> Measured:
    worst, facts = float("inf"), dict[str, Fact]()
    curves = {}
    for fraction in _FRACTIONS:
        ratios, written = _epochs(bench, place, fraction)
        warm = sum(ratios[1:]) / len(ratios[1:])
        worst = min(worst, warm / fraction, 1 - written)
        facts[f"c={fraction:.0%}: hits %"] = round(100 * warm, 2)
        facts[f"c={fraction:.0%}: written % after the first epoch"] = round(100 * written, 2)
        curves[f"c={fraction:.0%}"] = [(n + 1.0, 100 * ratio) for n, ratio in enumerate(ratios)]
    return Measured(worst, facts=facts, curves=curves)


def _epochs(bench: Bench, place: Place, fraction: float) -> tuple[list[float], float]:
    """Hit ratio of each epoch, and bytes written to the disk per byte read in all but the first."""
    data = place.data
    directory = os.path.join(bench.directory, f"{fraction}-{os.urandom(4).hex()}")
    space = {"path": f"{directory}-cache", "capacity_bytes": round(data.total_bytes * fraction)}
    settings: dict[str, Any] = {
        "cache_dirs": [space],
        "block_bytes": _MIB,
        "memory_bytes": 16 * _MIB,
        "fetch": {"concurrency": 14},  # of the memory 1 MiB each
    }
    served = cache_node(directory, [{"prefix": place.prefix}], spoiled=bench.sabotage, **settings)
    ratios, written = [], []
    with served as node:
        for epoch in range(_EPOCHS):
            received, sealed = _counted(node)
            with connect(node) as client:  # a new one: what the last one had open does not count
                _read_all(bench, place, epoch, client)
            now = _counted(node)
            ratios.append(1 - (now[0] - received) / data.total_bytes)
            written.append(now[1] - sealed)
    return ratios, sum(written[1:]) / (data.total_bytes * (_EPOCHS - 1))


def _read_all(bench: Bench, place: Place, epoch: int, client: hotshard.Client) -> None:
    read_into: Callable[[str, bytearray, int], int] = bench.sabotage.wrap_into(client.read_into)
    order = list(range(place.data.count))
    Random(f"{bench.seed}/{epoch}").shuffle(order)
    buffer = bytearray(place.data.object_bytes)
    for index in order:
        count = read_into(place.uri(index), buffer, 0)
        place.data.check(index, 0, count, buffer)


def _counted(node: Node) -> tuple[float, float]:
    """Bytes received from the origin, and bytes of shards sealed, until now."""
    counters = node.counters()
    received = [value for name, value in counters.items() if name.startswith(_RECEIVED)]
    return sum(received), counters[_SEALED]


ROWS = (
    Row(
        "epoch.hit",
        "shuffled epochs through a server with room for 10..90%: hits over c, and no writes",
        "x",
        0.99,
        _open,
        rounds=1,
        warm_up=False,
        sabotages=(Sabotage.FLIP, Sabotage.LRU),
        axes=("epoch", "hit ratio, %"),
        budget_s=35.0,
    ),
)
