"""scale.placement: what it costs to know an owner, to change the table, and how even the table is.

All of it is arithmetic in this process. A look-up is counted with the hash of its key, as a reader of one
shard pays it; the rate of the hash alone is in the record.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import xxhash

from benchmarks.bench import Bench, Row, Scale, Sides, constant
from benchmarks.results import BenchError, Fact, Measured
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better
from hotshard.core.placement import Placement, build
from hotshard.core.slots import Table

_CHANGE_MS_MAX = 100.0
_SHARE_MAX = 1.10
_WEIGHT = 100
_SHARDS_EACH = 1_000
_WITH_SHARDS = 100  # members; beyond that, the shards take longer than the table


def _members(count: int) -> dict[str, int]:
    return {xxhash.xxh3_128_hexdigest(b"%d" % i): _WEIGHT for i in range(count)}


@contextmanager
def _lookups(bench: Bench) -> Iterator[Sides]:
    """The same keys looked up among many members and among two."""
    slots = bench.pick(full=1 << 16, quick=1 << 16, tiny=1 << 10)
    many = bench.pick(full=5_000, quick=1_000, tiny=20)
    count = bench.pick(full=500_000, quick=200_000, tiny=200)
    rng = random.Random(bench.seed)
    keys = [f"s3://data/train/{rng.randrange(10**9):09d}\0v\0000".encode() for _ in range(count)]
    tables = {n: build(_members(n), slots=slots) for n in (2, many)}
    spoiled = bench.sabotage.wrap(_look_up)
    alone = _rate(keys, lambda digest: digest)

    def side(table: Table, look_up: _LookUp) -> Measured:
        rate = _rate(keys, table.owner, look_up)
        return Measured(rate / 1e6, operations=count, facts={"xxh3_alone_M/s": alone / 1e6})

    yield Sides(
        ours=lambda: side(tables[many], spoiled),
        limits={"2 members": lambda: side(tables[2], _look_up)},
    )


_Owner = Callable[[bytes], object]
_LookUp = Callable[[Sequence[bytes], _Owner], None]


def _look_up(keys: Sequence[bytes], owner: _Owner) -> None:
    digest_of = xxhash.xxh3_128_digest
    for key in keys:
        owner(digest_of(key))


def _rate(keys: Sequence[bytes], owner: _Owner, look_up: _LookUp = _look_up) -> float:
    began_s = time.perf_counter()
    look_up(keys, owner)
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
    change = bench.sabotage.wrap(placement.change)

    def side() -> Measured:
        left = rng.choice(whole.ids)
        took_ms, moved = [], 0
        for joined, gone in (({}, [left]), ({left: _WEIGHT}, [])):
            began_s = time.perf_counter()
            change(joined, gone)
            table = placement.table()
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            moved = max(moved, whole.moved(table))
        if placement.table() != whole:
            raise BenchError("a leave and a join of the same member gave another table")
        return Measured(max(took_ms), facts={"moved/ideal": moved / (slots / count)})

    yield Sides(ours=side, limits={"100 ms": constant(_CHANGE_MS_MAX)})


@contextmanager
def _balance(bench: Bench) -> Iterator[Sides]:
    """The worst of several sizes of cluster: slots of the fullest member over the mean.

    Counted by look-ups, one in every slot, not by what the table says of itself. The facts have the same
    for shards of one size with random names, as many as a member may hold: bytes, in the end.
    """
    slots = bench.pick(full=1 << 16, quick=1 << 16, tiny=1 << 14)
    sizes = (3, 10) if bench.scale is Scale.TINY else (3, 10, 100, 1_000)
    in_every_slot = [(slot * (1 << 32) // slots).to_bytes(4, "big") for slot in range(slots)]
    rng = random.Random(bench.seed)

    def side() -> Measured:
        worst, facts = 0.0, dict[str, Fact]()
        for count in sizes:
            members = _members(count)
            if bench.sabotage is Sabotage.UNEVEN:
                members[next(iter(members))] *= 2
            table = build(members, slots=slots)
            share = facts[f"n={count}"] = _fullest(table, in_every_slot)
            worst = max(worst, share)
            if count <= _WITH_SHARDS:
                shards = [rng.randbytes(4) for _ in range(count * _SHARDS_EACH)]
                facts[f"n={count}, of {_SHARDS_EACH:,} shards each"] = _fullest(table, shards)
        return Measured(worst, facts=facts)

    yield Sides(ours=side, limits={"the cap": constant(_SHARE_MAX)})


def _fullest(table: Table, digests: Sequence[bytes]) -> float:
    """What the member with most of them owns, over the mean."""
    owned = Counter(map(table.owner, digests))
    return max(owned.values()) * len(table.ids) / len(digests)


ROWS = (
    Row(
        "scale.placement",
        "owners looked up among 5,000 members, and among 2",
        "million/s",
        0.8,
        _lookups,
        sabotages=(Sabotage.SLOW,),
        budget_s=10.0,
    ),
    Row(
        "scale.placement_change",
        "one of 5,000 members leaves or joins",
        "ms",
        1.0,
        _change,
        better=Better.LOWER,
        sabotages=(Sabotage.SLOW,),
        budget_s=18.0,
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
        sabotages=(Sabotage.UNEVEN,),
        budget_s=8.0,
    ),
)
