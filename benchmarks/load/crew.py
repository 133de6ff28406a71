"""N client processes that read at the same time.

They are started once and then run as often as asked, so that a run measures reading and not the start of
Python. Each has its own target and its own stream of reads, and checks the bytes of some of them after
every run.
"""

import contextlib
import multiprocessing
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Self

from benchmarks.load import latency
from benchmarks.load.loops import Place, Tally, check_reads, closed_loop, open_loop
from benchmarks.load.targets import Target, TargetSpec
from benchmarks.load.workloads import Workload
from benchmarks.results import BenchError, Measured
from hotshard.core.errors import HotshardError

_START_S = 60.0
_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """What every process of a crew does in a run."""

    target: TargetSpec
    place: Place
    workload: Workload
    seconds: float
    rate: float = 0.0
    """Calls a second of the whole crew (open loop); 0: as many as it can (closed loop)."""


class Crew:
    """A context manager around the processes."""

    def __init__(self, load: Load, size: int) -> None:
        self._load = load
        self._size = size
        self._members: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Self:
        """Start the processes; returns when each has opened its target."""
        context = multiprocessing.get_context("spawn")
        try:
            for rank in range(self._size):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, self._load, rank, self._size), daemon=True
                )
                process.start()
                theirs.close()
                self._members.append((process, ours))
            self._collect(_START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        for _process, pipe in self._members:
            pipe.close()
        for process, _pipe in self._members:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()
        self._members = []

    def run(self) -> Measured:
        """One run of all; the value is the payload GB/s of all together.

        Raises:
            BenchError: a process died, hangs or read wrong bytes.
        """
        for _, pipe in self._members:
            pipe.send("run")
        tallies = [each for each in self._collect(self._load.seconds + _GRACE_S) if each]
        return Measured(
            value=sum(tally.payload_bytes / tally.seconds for tally in tallies) / 1e9,
            seconds=max(tally.seconds for tally in tallies),
            payload_bytes=sum(tally.payload_bytes for tally in tallies),
            operations=sum(tally.operations for tally in tallies),
            cpu_s={"client": sum(tally.cpu_s for tally in tallies)},
            histogram=latency.merged(latency.encode(tally.latencies_ns) for tally in tallies),
        )

    def _collect(self, timeout_s: float) -> list[Tally | None]:
        """One answer of each: what it did, or None when it is ready."""
        deadline = time.monotonic() + timeout_s
        answers: list[Tally | None] = []
        for _, pipe in self._members:
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise BenchError(f"a client process gave no answer within {timeout_s:.0f} s")
            try:
                answer = pipe.recv()
            except EOFError as error:
                raise BenchError("a client process died") from error
            if isinstance(answer, BaseException):
                raise answer
            answers.append(answer)
        return answers


def _work(pipe: Connection, load: Load, rank: int, ranks: int) -> None:
    """The body of a client process: one run for every message, until the pipe closes."""
    with contextlib.suppress(EOFError, BrokenPipeError):  # the crew is over
        try:
            _serve(pipe, load, rank, ranks)
        except BenchError as error:
            pipe.send(error)
        except (HotshardError, OSError, ValueError) as error:
            pipe.send(BenchError("".join(traceback.format_exception(error))))


def _serve(pipe: Connection, load: Load, rank: int, ranks: int) -> None:
    with contextlib.closing(load.target.open()) as target:
        pipe.send(None)
        while True:
            pipe.recv()
            pipe.send(_run(target, load, rank, ranks))


def _run(target: Target, load: Load, rank: int, ranks: int) -> Tally:
    reads = load.workload.reads(load.place.data, rank, ranks)
    if load.rate:
        tally = open_loop(target, load.place, reads, load.seconds, load.rate / ranks)
    else:
        tally = closed_loop(target, load.place, reads, load.seconds)
    check_reads(target, load.place, load.workload.reads(load.place.data, rank, ranks))
    return tally
