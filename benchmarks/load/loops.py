"""Drives one target from one thread: closed loop or open loop.

Closed: the next call begins when the last one ended; gives throughput. Open: calls are due at a constant
rate whatever the target does, and a latency counts from when the call was due, not from when it could be
made: a stall is felt by every call that had to wait for it (no coordinated omission).
"""

import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from benchmarks.load.objects import Objects
from benchmarks.load.targets import Target
from benchmarks.load.workloads import Read

LATENCIES_MAX = 4_000_000  # per loop: 32 MB; later calls are made and counted, but not timed
_CHECKED_READS = 64
_LONGER = 2.0


@dataclass(slots=True)
class Tally:
    """What a loop did."""

    operations: int
    payload_bytes: int
    seconds: float
    cpu_s: float
    """Of this process."""
    latencies_ns: "array[int]"
    """Of the first LATENCIES_MAX calls."""


def closed_loop(target: Target, place: Objects, reads: Iterator[Read], seconds: float) -> Tally:
    """As many calls as fit into `seconds`."""
    return _loop(target, place, reads, seconds, due_ns=None)


def open_loop(
    target: Target, place: Objects, reads: Iterator[Read], seconds: float, rate: float
) -> Tally:
    """`rate` calls a second for `seconds`; if the target cannot keep up, twice as long at most."""
    gap_ns = 1e9 / rate
    calls = islice(reads, max(1, int(seconds * rate)))
    return _loop(target, place, calls, _LONGER * seconds, lambda done: int(done * gap_ns))


def check_reads(target: Target, place: Objects, reads: Iterator[Read]) -> None:
    """Make the first reads once more, untimed, and compare every byte.

    Raises:
        WrongBytes: some differ.
    """
    uris = place.uris()
    for read in islice(reads, _CHECKED_READS):
        view = memoryview(bytearray(read.length))
        count = target.read_into(uris[read.index], view, read.offset)
        place.check(read.index, read.offset, read.length, view[:count])


def _loop(
    target: Target,
    place: Objects,
    reads: Iterator[Read],
    seconds: float,
    due_ns: Callable[[int], int] | None,
) -> Tally:
    uris = place.uris()
    latencies = array("Q")
    view = memoryview(bytearray(0))
    operations = total = 0
    cpu = time.process_time()
    begun = time.perf_counter_ns()
    deadline = begun + seconds * 1e9
    for read in reads:
        if len(view) != read.length:
            view = memoryview(bytearray(read.length))
        now = time.perf_counter_ns()
        start = now if due_ns is None else begun + due_ns(operations)
        if start > now:
            time.sleep((start - now) / 1e9)
        total += target.read_into(uris[read.index], view, read.offset)
        end = time.perf_counter_ns()
        operations += 1
        if operations <= LATENCIES_MAX:
            latencies.append(end - start)
        if end >= deadline:
            break
    took = (time.perf_counter_ns() - begun) / 1e9
    return Tally(operations, total, took, time.process_time() - cpu, latencies)
