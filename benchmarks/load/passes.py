"""One pass over a data set by several readers at once, each in a thread: for what is cold only once."""

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.load.targets import Target, TargetSpec
from benchmarks.results import BenchError
from benchmarks.sabotage import Sabotage
from hotshard.core.errors import HotshardError

PIECE_BYTES = 8 << 20
JOIN_S = 120.0

Uris = Sequence[str]
ReadAll = Callable[[Target, int], None]
"""What one reader does: on its target, knowing its number."""


def everything(data: DataSet, uris: Uris, sabotage: Sabotage) -> ReadAll:
    """Read every object once, and check one of them."""

    def read_all(target: Target, number: int) -> None:
        view = memoryview(bytearray(min(PIECE_BYTES, data.object_bytes)))
        read_into = sabotage.wrap_into(target.read_into)
        start = number * data.count // 8  # not all at the same object
        for step in range(data.count):
            uri = uris[(start + step) % data.count]
            for offset in range(0, data.object_bytes, PIECE_BYTES):
                length = min(PIECE_BYTES, data.object_bytes - offset)
                read_into(uri, view[:length], offset)
        count = read_into(uris[number % data.count], view, 0)
        data.check(number % data.count, 0, len(view), view[:count])

    return read_all


def together(specs: Sequence[TargetSpec], read_all: ReadAll, others: dict[str, int]) -> Cost:
    """All readers at once, each in a thread of its own."""
    errors: list[Exception] = []

    def run(number: int, target: Target) -> None:
        try:
            read_all(target, number)
        except (BenchError, HotshardError, OSError) as error:
            errors.append(error)

    with ExitStack() as stack:
        targets = []
        for spec in specs:
            targets.append(spec.open())
            stack.callback(targets[-1].close)
        threads = [
            threading.Thread(target=run, args=each, daemon=True) for each in enumerate(targets)
        ]
        cost = Cost(others)
        with cost:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(JOIN_S)
        if any(thread.is_alive() for thread in threads):
            raise BenchError(f"a reader hangs for more than {JOIN_S:g} s")
    if errors:
        raise errors[0]
    return cost
