"""N client processes that do the same job at the same time.

They are started once and then run as often as asked, so that a run measures reading and not the start of
Python. Each has its own target and knows its rank. The usual job is a load: a stream of reads, timed, and
some of them made again afterwards to check the bytes.
"""

import contextlib
import ctypes
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, Protocol, Self, TypeVar

from benchmarks.load import latency
from benchmarks.load.loops import check_reads, closed_loop, open_loop
from benchmarks.load.objects import Objects
from benchmarks.load.targets import Target, TargetSpec
from benchmarks.load.workloads import Workload
from benchmarks.results import BenchError, Measured
from hotshard.core.errors import HotshardError

T_co = TypeVar("T_co", covariant=True)

_START_S = 60.0
_GRACE_S = 60.0
_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NS = 1000  # a sleep ends that near to when it was to end; the default is 50 µs


class Job(Protocol[T_co]):
    """What every process of a crew does in a run; picklable."""

    @property
    def target(self) -> TargetSpec:
        """What each opens for itself."""

    @property
    def seconds(self) -> float:
        """About how long a run takes."""

    def run(self, target: Target, rank: int, ranks: int) -> T_co:
        """One run of one process."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process did in a run of a load."""

    operations: int
    payload_bytes: int
    seconds: float
    cpu_s: float
    histogram: str
    untimed: int
    """Calls that were made, and whose latency nobody kept."""


@dataclass(frozen=True, slots=True)
class Load:
    """A stream of reads: the job of a crew."""

    target: TargetSpec
    place: Objects
    workload: Workload
    seconds: float
    rate: float = 0.0
    """Calls a second of the whole crew (open loop); 0: as many as it can (closed loop)."""

    def run(self, target: Target, rank: int, ranks: int) -> Share:
        """Read for a while, then check."""
        reads = self.workload.reads(self.place, rank, ranks)
        if self.rate:
            tally = open_loop(target, self.place, reads, self.seconds, self.rate / ranks)
        else:
            tally = closed_loop(target, self.place, reads, self.seconds)
        check_reads(target, self.place, self.workload.reads(self.place, rank, ranks))
        return Share(
            tally.operations,
            tally.payload_bytes,
            tally.seconds,
            tally.cpu_s,
            latency.encode(tally.latencies_ns),
            tally.operations - len(tally.latencies_ns),
        )


def together(shares: Sequence[Share]) -> Measured:
    """The run of a whole crew; the value is the payload GB/s of all."""
    return Measured(
        value=sum(share.payload_bytes / share.seconds for share in shares) / 1e9,
        seconds=max(share.seconds for share in shares),
        payload_bytes=sum(share.payload_bytes for share in shares),
        operations=sum(share.operations for share in shares),
        cpu_s={"client": sum(share.cpu_s for share in shares)},
        histogram=latency.merged(share.histogram for share in shares),
        facts={"untimed calls": sum(share.untimed for share in shares)},
    )


class Crew(Generic[T_co]):
    """A context manager around the processes."""

    def __init__(self, job: Job[T_co], size: int) -> None:
        self._job = job
        self._size = size
        self._members: list[tuple[BaseProcess, Connection]] = []

    def __enter__(self) -> Self:
        """Start the processes; returns when each has opened its target."""
        context = multiprocessing.get_context("spawn")
        try:
            for rank in range(self._size):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, self._job, rank, self._size), daemon=True
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

    def run(self) -> list[T_co]:
        """One run of all: what each says of it, by rank.

        Raises:
            BenchError: a process died, hangs or read wrong bytes.
        """
        self.start()
        return self.finish()

    def start(self) -> None:
        """Begin a run, and do something else meanwhile."""
        for _, pipe in self._members:
            pipe.send("run")

    def finish(self) -> list[T_co]:
        """Wait for the end of the run."""
        return self._collect(self._job.seconds + _GRACE_S)

    def _collect(self, timeout_s: float) -> list[T_co]:
        """One answer of each: what it did, or None when it is ready."""
        deadline = time.monotonic() + timeout_s
        answers: list[T_co] = []
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


def _work(pipe: Connection, job: Job[object], rank: int, ranks: int) -> None:
    """The body of a client process: one run for every message, until the pipe closes."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK_NS, 0, 0, 0)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the crew is over
        try:
            _serve(pipe, job, rank, ranks)
        except BenchError as error:
            pipe.send(error)
        except (HotshardError, OSError, ValueError) as error:
            pipe.send(BenchError("".join(traceback.format_exception(error))))


def _serve(pipe: Connection, job: Job[object], rank: int, ranks: int) -> None:
    with contextlib.closing(job.target.open()) as target:
        pipe.send(None)
        while True:
            pipe.recv()
            pipe.send(job.run(target, rank, ranks))
