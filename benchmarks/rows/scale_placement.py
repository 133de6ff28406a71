"""scale.placement: what it costs to know an owner, to change the table, and how even the table is.

All of it is arithmetic in this process. A look-up is counted with the hash of its key, as a reader of one
shard pays it; the rate of the hash alone is in the record.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import xxhash

from benchmarks.bench import Bench, Row, Sides, constant
from benchmarks.results import BenchError, Measured
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better
from hotshard.core.placement import Placement, build
from hotshard.core.slots import Table

_CHANGE_MS_MAX = 100.0
_SHARE_MAX = 1.10


def _members(count: int) -> dict[str, int]:
    return {xxhash.xxh3_128_hexdigest(b"%d" % i): 100 for i in range(count)}


@contextmanager
def _lookups(bench: Bench) -> Iterator[Sides]:
    """The same keys looked up among many members and among two."""
    slots = bench.pick(full=1 << 16, quick=1 << 16, tiny=1 << 10)
    many = bench.pick(full=5_000, quick=1_000, tiny=20)
    count = bench.pick(full=500_000, quick=200_000, tiny=200)
    rng = random.Random(bench.seed)
    keys = [f"s3://data/train/{rng.randrange(10**9):09d}\0v\0000".encode() for _ in range(count)]
    tables = {n: build(_members(n), slots=slots) for n in (2, many)}
    alone = _rate(keys, lambda digest: digest)

    def side(table: Table, *, spoiled: bool) -> Measured:
        owner = bench.sabotage.wrap(table.owner) if spoiled else table.owner
        rate = _rate(keys, owner)
        return Measured(rate / 1e6, operations=count, facts={"xxh3_alone_M/s": alone / 1e6})

    yield Sides(
        ours=lambda: side(tables[many], spoiled=True),
        limits={"2 members": lambda: side(tables[2], spoiled=False)},
    )


def _rate(keys: Sequence[bytes], look_up: Callable[[bytes], object]) -> float:
    digest_of = xxhash.xxh3_128_digest
    began_s = time.perf_counter()
    for key in keys:
        look_up(digest_of(key))
    return len(keys) / (time.perf_counter() - began_s)


@contextmanager
def _change(bench: Bench) -> Iterator[Sides]:
    """The slower of a leave and a join, the finished table included."""
    slots = bench.pick(full=1 << 16, quick=1 << 16, tiny=1 << 10)
    count = bench.pick(full=5_000, quick=1_000, tiny=20)
    weights = _members(count)
    placement = Placement(slots=slots)
    placement.change(weights, ())
    whole = placement.table()
    rng = random.Random(bench.seed)

    def side() -> Measured:
        left = rng.choice(whole.ids)
        took_ms, moved = [], 0
        for joined, gone in (({}, [left]), ({left: 100}, [])):
            began_s = time.perf_counter()
            placement.change(joined, gone)
            table = placement.table()
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            moved = max(moved, whole.moved(table))
        if placement.table() != whole:
            raise BenchError("a leave and a join of the same member gave another table")
        return Measured(max(took_ms), facts={"moved/ideal": moved / (slots / count)})

    yield Sides(ours=side, limits={"100 ms": constant(_CHANGE_MS_MAX)})


@contextmanager
def _balance(bench: Bench) -> Iterator[Sides]:
    """The worst of several sizes of cluster: slots of the fullest member over the mean."""
    slots = bench.pick(full=1 << 16, quick=1 << 16, tiny=1 << 14)
    sizes = (3, 10) if bench.pick(full=0, quick=0, tiny=1) else (3, 10, 100, 1_000)

    def side() -> Measured:
        worst: dict[str, float | str] = {}
        for count in sizes:
            loads = build(_members(count), slots=slots).loads()
            worst[f"n={count}"] = max(loads.values()) * count / slots
        return Measured(max(float(value) for value in worst.values()), facts=worst)

    yield Sides(ours=side, limits={"the cap": constant(_SHARE_MAX)})


ROWS = (
    Row(
        "scale.placement",
        "owners looked up among 5,000 members, and among 2",
        "million/s",
        0.8,
        _lookups,
        sabotages=(Sabotage.SLOW,),
    ),
    Row(
        "scale.placement_change",
        "one of 5,000 members leaves or joins",
        "ms",
        1.0,
        _change,
        better=Better.LOWER,
        sabotages=(),
    ),
    Row(
        "scale.placement_balance",
        "slots of the fullest member over the mean, 3 to 1,000 members",
        "x",
        1.0,
        _balance,
        better=Better.LOWER,
        rounds=1,
        warm_up=False,
        sabotages=(),
    ),
)
