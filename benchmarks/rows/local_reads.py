"""local.seq_1m, local.rand_4k: reads of one hot object, beside preadv of the very file that is cached.

Timed loops hold nothing but the calls; some of the same reads are made again afterwards and compared. The
origin is a directory, which plays no part once the data is resident.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.results import BenchError, Measured
from benchmarks.rows.scene import Hot, hot_files
from hotshard import CachedFile

_MIB = 1 << 20
_PAGE = 4096
_CHECKED = 50  # reads compared after each timed run

Reads = Callable[[memoryview, Sequence[int]], None]
"""Reads into the view at each of the offsets, in order."""


@contextmanager
def _open_seq_1m(bench: Bench) -> Iterator[Sides]:
    data = _one_object(bench)
    offsets = list(range(0, data.object_bytes, _MIB)) * bench.pick(full=10, quick=20, tiny=2)
    with hot_files(bench.directory, data) as hot, _handle_reads(bench, hot) as reads:
        yield _sides(hot, reads, _MIB, offsets)


@contextmanager
def _open_rand_4k(bench: Bench) -> Iterator[Sides]:
    data = _one_object(bench)
    with hot_files(bench.directory, data) as hot, _handle_reads(bench, hot) as reads:
        yield _sides(hot, reads, _PAGE, _random_pages(bench, data))


@contextmanager
def _open_rand_4k_name(bench: Bench) -> Iterator[Sides]:
    data = _one_object(bench)
    with hot_files(bench.directory, data) as hot:
        uri, read_into = hot.place.uri(0), bench.sabotage.wrap_into(hot.client.read_into)

        def reads(view: memoryview, offsets: Sequence[int]) -> None:
            for offset in offsets:
                read_into(uri, view, offset)

        yield _sides(hot, reads, _PAGE, _random_pages(bench, data))


def _one_object(bench: Bench) -> DataSet:
    return DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=2) * _MIB)


def _random_pages(bench: Bench, data: DataSet) -> list[int]:
    count = bench.pick(full=200_000, quick=100_000, tiny=200)
    pages = range(0, data.object_bytes, _PAGE)
    return random.Random(bench.seed).choices(pages, k=count)


@contextmanager
def _handle_reads(bench: Bench, hot: Hot) -> Iterator[Reads]:
    """Through a file object that is open already, as the limit's file is."""
    with hot.client.open(hot.place.uri(0), buffering=0) as file:
        if not isinstance(file, CachedFile):
            raise BenchError("open(buffering=0) should give a raw file")
        readinto_at = bench.sabotage.wrap_into(file.readinto_at)

        def reads(view: memoryview, offsets: Sequence[int]) -> None:
            for offset in offsets:
                readinto_at(view, offset)

        yield reads


def _sides(hot: Hot, reads: Reads, read_bytes: int, offsets: Sequence[int]) -> Sides:
    path = hot.cached_path(0)
    worth = (
        read_bytes / 1e9 if read_bytes >= _MIB else 1.0
    )  # big reads count in GB, small ones singly

    def native(view: memoryview, offsets: Sequence[int]) -> None:
        preadv, buffers = os.preadv, [view]
        with open(path, "rb", buffering=0) as file:
            fd = file.fileno()
            for offset in offsets:
                preadv(fd, buffers, offset)

    def timed(body: Reads) -> Measured:
        view = memoryview(bytearray(read_bytes))
        with Cost({"server": hot.node.pid}) as cost:
            body(view, offsets)
        count = len(offsets)
        return Measured(
            count * worth / cost.seconds, cost.seconds, count * read_bytes, count, cost.cpu_s
        )

    def ours() -> Measured:
        measured = timed(reads)
        for offset in offsets[:_CHECKED]:
            view = memoryview(bytearray(read_bytes))
            reads(view, [offset])
            hot.data.check(0, offset, read_bytes, view)
        return measured

    return Sides(ours=ours, limits={"preadv": lambda: timed(native)})


ROWS = (
    Row(
        "local.seq_1m",
        "hot object through the client, 1 MiB reads in order",
        "GB/s",
        0.95,
        _open_seq_1m,
        rounds=9,
        budget_s=10.0,
    ),
    Row(
        "local.rand_4k",
        "hot object through the client, 4 KiB reads at random, file open on both sides",
        "reads/s",
        0.80,
        _open_rand_4k,
        rounds=9,
        budget_s=10.0,
    ),
    Row(
        "local.rand_4k_name",
        "hot object by name, without opening, 4 KiB reads at random: Client.read_into(uri, ...)",
        "reads/s",
        0.80,
        _open_rand_4k_name,
        rounds=9,
        budget_s=10.0,
    ),
)
