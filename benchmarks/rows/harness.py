"""harness.self: the same reads on both sides.

Its ratio is 1.0 but for noise, so it says how far the other rows of the run can be believed. It needs
nothing but a directory.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.results import Measured
from benchmarks.sabotage import Buffer

_READ_BYTES = 64 << 10


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 1, bench.pick(full=64 << 20, quick=16 << 20, tiny=1 << 20))
    data.write(bench.directory)
    reads = bench.pick(full=20_000, quick=5_000, tiny=20)
    offsets = [
        page * _READ_BYTES
        for page in random.Random(bench.seed).choices(
            range(data.object_bytes // _READ_BYTES), k=reads
        )
    ]
    fd = os.open(os.path.join(bench.directory, data.name(0)), os.O_RDONLY)

    def read(_: str, buffer: Buffer, offset: int) -> int:
        return os.preadv(fd, [buffer], offset)

    def side(read_into: Callable[[str, Buffer, int], int]) -> Measured:
        buffer = bytearray(_READ_BYTES)
        with Cost() as cost:
            for offset in offsets:
                read_into("", buffer, offset)
        for offset in offsets[:100]:
            count = read_into("", buffer, offset)
            data.check(0, offset, _READ_BYTES, memoryview(buffer)[:count])
        done = len(offsets) * _READ_BYTES
        return Measured(done / cost.seconds / 1e9, cost.seconds, done, len(offsets), cost.cpu_s)

    try:
        spoiled = bench.sabotage.wrap_into(read)
        yield Sides(ours=lambda: side(spoiled), limits={"the same": lambda: side(read)})
    finally:
        os.close(fd)


ROWS = (
    Row(
        "harness.self",
        "64 KiB preadv against itself: the noise of this run",
        "GB/s",
        0.9,
        _open,
        below="other work on the machine; no figure of this run can be believed beyond that",
        budget_s=5.0,
    ),
)
