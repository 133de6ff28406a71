"""A data loader and an accelerator that sleeps: some epochs of one rank.

The loader is built as PyTorch's: `workers` threads, each reads a whole batch into memory of its own, at
most two batches of each are under way or waiting, and batches are taken in order. The accelerator takes
one, computes (sleeps), and takes the next; whatever it waits in between is a stall.

Utilisation is counted as MLPerf Storage counts it: computing time over elapsed time, without the first
step, which pays for the filling of the pipe.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.data import DataSet
from benchmarks.load.objects import Place
from benchmarks.load.targets import Target, TargetSpec
from benchmarks.load.workloads import Read
from benchmarks.results import BenchError
from benchmarks.sabotage import Sabotage
from benchmarks.training.models import Model
from hotshard.core.errors import HotshardError

_AHEAD = 2  # batches of each worker
_PATIENCE_S = 60.0
_CHECKED_BATCHES = 2

Batch = Sequence[Read]
ReadBatch = Callable[[Batch, memoryview], int]


@dataclass(frozen=True, slots=True)
class Seen:
    """What one accelerator saw in a run."""

    au: float
    """Computing over elapsed time, 0 to 1."""
    samples: int
    payload_bytes: int
    seconds: float
    stall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Training:
    """The job of each process: it is one accelerator with its loader."""

    target: TargetSpec
    place: Place
    model: Model
    seed: int
    read_bytes: int
    """Of each call, where a file holds many records."""
    epochs: int = 1
    sabotage: Sabotage = Sabotage.NONE

    @property
    def seconds(self) -> float:
        """A run without stalls, if there were only this accelerator."""
        steps = self.epochs * self.place.count * self.model.records_per_file / self.model.batch
        return steps * self.model.step_s

    def run(self, target: Target, rank: int, ranks: int) -> Seen:
        """The epochs, then a check of some batches."""
        batches = [
            batch
            for epoch in range(self.epochs)
            for batch in epoch_batches(
                self.model, self.place.data, self.seed + epoch, self.read_bytes
            )[rank::ranks]
        ]
        if len(batches) < 2:
            raise BenchError(f"{len(batches)} batches for rank {rank}: too few objects")
        uris = self.place.uris()

        def read(batch: Batch, memory: memoryview) -> int:
            done = 0
            for each in batch:
                view = memory[done : done + each.length]
                done += target.read_into(uris[each.index], view, each.offset)
            return done

        seen = _Run(self.model, batches, self.sabotage.wrap(read)).go()
        for batch in batches[:_CHECKED_BATCHES]:
            for each in batch:
                view = memoryview(bytearray(each.length))
                count = target.read_into(uris[each.index], view, each.offset)
                self.place.check(each.index, each.offset, each.length, view[:count])
        return seen


def epoch_batches(model: Model, data: DataSet, seed: int, read_bytes: int) -> list[Batch]:
    """The batches of an epoch: files in shuffled order, and records in order inside a file of many."""
    order = list(range(data.count))
    random.Random(seed).shuffle(order)
    if model.records_per_file == 1:
        whole = [Read(index, 0, data.size(index)) for index in order]
        return [whole[at : at + model.batch] for at in range(0, len(whole), model.batch)]
    batch_bytes = model.batch * model.record_bytes
    return [
        [
            Read(index, at, min(read_bytes, start + batch_bytes - at))
            for at in range(start, start + batch_bytes, read_bytes)
        ]
        for index in order
        for start in range(0, data.size(index) - batch_bytes + 1, batch_bytes)
    ]


class _Run:
    """The threads of one run."""

    def __init__(self, model: Model, batches: Sequence[Batch], read: ReadBatch) -> None:
        self._model = model
        self._batches = batches
        self._read = read
        self._next = iter(range(len(batches)))
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_AHEAD * model.workers)
        self._ready = [threading.Event() for _ in batches]
        self._error: BaseException | None = None
        self._over = False
        self._bytes = 0

    def go(self) -> Seen:
        """Compute until all batches are done.

        Raises:
            BenchError: a worker failed or hangs.
        """
        threads = [threading.Thread(target=self._work) for _ in range(self._model.workers)]
        cpu_s = time.process_time()
        for thread in threads:
            thread.start()
        try:
            elapsed_s, stall_s = self._steps()
        finally:
            self._over = True
            for _ in threads:
                self._room.release()
            for thread in threads:
                thread.join()
        steps = len(self._batches)
        computed_s = (steps - 1) * self._model.step_s
        cpu_s = time.process_time() - cpu_s
        samples = steps * self._model.batch
        return Seen(computed_s / elapsed_s, samples, self._bytes, elapsed_s, stall_s, cpu_s)

    def _steps(self) -> tuple[float, float]:
        begun, stall_s = 0.0, 0.0
        for number, ready in enumerate(self._ready):
            waited = time.perf_counter()
            if not ready.wait(_PATIENCE_S):
                raise BenchError(f"a batch did not come within {_PATIENCE_S:g} s")
            if self._error is not None:
                raise BenchError(f"a loader failed: {self._error}") from self._error
            if number:
                stall_s += time.perf_counter() - waited
            self._room.release()
            time.sleep(self._model.step_s)
            if not number:
                begun = time.perf_counter()
        return time.perf_counter() - begun, stall_s

    def _work(self) -> None:
        memory = memoryview(bytearray(max(sum(r.length for r in b) for b in self._batches)))
        while True:
            self._room.acquire()
            with self._lock:
                number = next(self._next, None)
            if number is None or self._over:
                return
            try:
                count = self._read(self._batches[number], memory)
            except (HotshardError, OSError, BenchError, ValueError) as error:
                self._error = error
                self._over = True
                for ready in self._ready:
                    ready.set()
                return
            with self._lock:
                self._bytes += count
            self._ready[number].set()
