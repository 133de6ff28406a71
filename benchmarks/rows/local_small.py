"""local.open_small: hot objects of 100 KiB, each opened, read and closed, beside the same with plain files.

Warm: the client has read them before and holds their leases. Batch: a client that knows nothing of them
asks for 256 with one call. Orders are shuffled.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from benchmarks.bench import Bench, Row, Side, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.results import Measured
from benchmarks.rows.scene import Hot, connect, hot_files
from benchmarks.sabotage import Buffer, ReadInto

_OBJECT_BYTES = 100 << 10
_BATCH = 256  # objects whose bytes are held at one time, on both sides


@contextmanager
def _open_warm(bench: Bench) -> Iterator[Sides]:
    def native(path: str, buffer: Buffer) -> None:
        fd = os.open(path, os.O_RDONLY)
        os.preadv(fd, (buffer,), 0)
        os.close(fd)

    with _hot(bench) as hot:
        read_into = bench.sabotage.wrap_into(hot.client.read_into)
        limit = {"open+preadv+close": _native_into(hot, bench, native)}
        yield Sides(ours=_ours_into(hot, bench, read_into), limits=limit)


@contextmanager
def _open_file(bench: Bench) -> Iterator[Sides]:
    def native(path: str, buffer: Buffer) -> None:
        with open(path, "rb", buffering=0) as file:
            file.readinto(buffer)

    with _hot(bench) as hot:

        def through_file(uri: str, buffer: Buffer, offset: int) -> int:
            with hot.client.open(uri, buffering=0) as file:
                if offset:
                    file.seek(offset)
                return file.readinto(buffer)

        read_into = bench.sabotage.wrap_into(through_file)
        limit = {"open() of Python": _native_into(hot, bench, native)}
        yield Sides(ours=_ours_into(hot, bench, read_into), limits=limit)


@contextmanager
def _open_batch(bench: Bench) -> Iterator[Sides]:
    with _hot(bench) as hot:
        order = _order(hot.data, 1, bench.seed)
        paths = _batches([hot.cached_path(index) for index in order])
        uris = _batches([hot.place.uri(index) for index in order])

        def ours() -> Measured:
            with closing(connect(hot.node)) as client:  # one that holds no lease yet
                client.check()
                read_many = bench.sabotage.wrap_bytes(client.read_many)
                with Cost({"server": hot.node.pid}) as cost:
                    for batch in uris:
                        read_many(batch)
                for index, body in zip(order, read_many(uris[0]), strict=False):
                    hot.data.check(index, 0, _OBJECT_BYTES, body)
            return _measured(cost, len(order))

        def native() -> Measured:
            with Cost() as cost:
                for batch in paths:
                    _native_bodies(batch)
            return _measured(cost, len(order))

        yield Sides(ours=ours, limits={"open+pread+close": native})


def _native_bodies(paths: Sequence[str]) -> list[bytes]:
    bodies = []
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        bodies.append(os.pread(fd, _OBJECT_BYTES, 0))
        os.close(fd)
    return bodies


@contextmanager
def _hot(bench: Bench) -> Iterator[Hot]:
    data = DataSet(bench.seed, bench.pick(full=1000, quick=500, tiny=20), _OBJECT_BYTES)
    with hot_files(bench.directory, data) as hot:
        yield hot


def _order(data: DataSet, passes: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [index for _ in range(passes) for index in rng.sample(range(data.count), data.count)]


def _batches(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]


def _ours_into(hot: Hot, bench: Bench, read_into: ReadInto) -> Side:
    order = _order(hot.data, bench.pick(full=20, quick=10, tiny=2), bench.seed)
    uris = [hot.place.uri(index) for index in order]

    def side() -> Measured:
        view = memoryview(bytearray(_OBJECT_BYTES))
        for index in range(hot.data.count):  # leases may have run out since the last run
            count = read_into(hot.place.uri(index), view, 0)
            hot.data.check(index, 0, _OBJECT_BYTES, view[:count])
        with Cost({"server": hot.node.pid}) as cost:
            for uri in uris:
                read_into(uri, view, 0)
        return _measured(cost, len(uris))

    return side


def _native_into(hot: Hot, bench: Bench, read: Callable[[str, Buffer], None]) -> Side:
    known = [hot.cached_path(index) for index in range(hot.data.count)]
    passes = bench.pick(full=20, quick=10, tiny=2)
    paths = [known[index] for index in _order(hot.data, passes, bench.seed)]

    def side() -> Measured:
        view = memoryview(bytearray(_OBJECT_BYTES))
        with Cost() as cost:
            for path in paths:
                read(path, view)
        return _measured(cost, len(paths))

    return side


def _measured(cost: Cost, count: int) -> Measured:
    total = count * _OBJECT_BYTES
    return Measured(count / cost.seconds, cost.seconds, total, count, cost.cpu_s)


ROWS = (
    Row(
        "local.open_small_warm",
        "100 KiB objects by name while the lease holds: Client.read_into(uri, ...)",
        "objects/s",
        0.8,
        _open_warm,
        rounds=9,
        budget_s=10.0,
    ),
    Row(
        "local.open_small_file",
        "100 KiB objects through file objects while the lease holds: open, readinto, close",
        "objects/s",
        0.8,
        _open_file,
        rounds=9,
        budget_s=12.0,
    ),
    Row(
        "local.open_small_batch",
        "100 KiB objects the client does not know yet: Client.read_many(uris)",
        "objects/s",
        0.3,
        _open_batch,
        rounds=9,
        budget_s=10.0,
    ),
)
