"""A trace that was recorded from a real server, and how to record another.

    python -m benchmarks.policy.recorded OUTPUT

runs a server with room for half of a small dataset, and a loader as training jobs have it: WORKERS
processes that share out a new order each epoch, read the head of each object and then all of it, and
after each epoch a validation set. What the eviction policy is told meanwhile is the trace.

The file is text: a line that begins with "#" is a remark, "epoch" begins an epoch, and every other line is
what the policy was told of one shard: milliseconds since the start, the number of the dataset and the
number of the shard, in the order in which they were first seen. Readers that open a shard several times
are in it as often.
"""

import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hotshard
from benchmarks.data import DataSet
from benchmarks.node import cache_node
from benchmarks.policy.replay import Access
from benchmarks.policy.traces import EPOCH_S, shard
from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.core.eviction import Shard

RECORDED = str(Path(__file__).parent / "recorded.txt")
WORKERS = 4
EPOCHS = 8
TRAINING, VALIDATION, OBJECT_BYTES = 300, 30, 256 << 10
_HEAD_BYTES = 4096
_COMPUTE_S = 0.002


class Recorder(DatasetPolicy):
    """A policy that writes down what it is told; what the recording server runs."""

    path = ""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._file = open(self.path, "a", encoding="ascii", buffering=1)  # noqa: SIM115 - for ever

    def touch(self, digest: bytes, dataset: int, now_s: float) -> None:
        """See EvictionPolicy."""
        self._write(digest, dataset, now_s)
        super().touch(digest, dataset, now_s)

    def offer(self, shard: Shard, need_bytes: int, now_s: float) -> bool:
        """See EvictionPolicy."""
        self._write(shard.digest, shard.dataset, now_s)
        return super().offer(shard, need_bytes, now_s)

    def _write(self, digest: bytes, dataset: int, now_s: float) -> None:
        self._file.write(f"{int(now_s * 1000)} {dataset} {digest.hex()}\n")


def recorded(path: str) -> list[Access]:
    """A recorded trace, slowed down so that an epoch takes as long as those of the other traces."""
    begins_ms: list[int] = []
    rows: list[tuple[int, int, int, int]] = []
    after_epoch = False
    for line in Path(path).read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            continue
        if line == "epoch":
            after_epoch = True
            continue
        at_ms, dataset, number = map(int, line.split())
        if after_epoch:
            begins_ms.append(at_ms)
            after_epoch = False
        rows.append((at_ms, dataset, number, len(begins_ms) - 1))
    slower = EPOCH_S * len(begins_ms) / rows[-1][0]
    return [Access(ms * slower, shard(dataset, n), epoch) for ms, dataset, n, epoch in rows]


def record(output: str) -> None:
    """Record a trace."""
    with tempfile.TemporaryDirectory(prefix="hotshard-trace-") as work:
        for name, count in (("train", TRAINING), ("val", VALIDATION)):
            DataSet(1, count, OBJECT_BYTES).write(f"{work}/origin/{name}")
        raw = f"{work}/raw"
        settings: dict[str, Any] = {
            "cache_dirs": [
                {
                    "path": f"{work}/cache",
                    "capacity_bytes": (TRAINING + VALIDATION) // 2 * OBJECT_BYTES,
                }
            ],
            "memory_bytes": "16MiB",
            "fetch": {"concurrency": 4},
        }
        before = (
            "import cache_server.sources as made; from benchmarks.policy.recorded import Recorder;"
            f"Recorder.path = {raw!r}; made.DatasetPolicy = Recorder;"
        )
        origin = {"prefix": f"file://{work}/origin/"}
        with cache_node(f"{work}/node", [origin], before=before, **settings) as node:
            for epoch in range(EPOCHS):
                with open(raw, "a", encoding="ascii") as file:
                    file.write("epoch\n")
                _read("train", TRAINING, epoch, node.socket, origin["prefix"])
                _read("val", VALIDATION, 0, node.socket, origin["prefix"])
        lines = list(_numbered(Path(raw).read_text(encoding="ascii").splitlines()))
    Path(output).write_text("\n".join(lines) + "\n", encoding="ascii")


def _read(name: str, count: int, epoch: int, socket_path: str, prefix: str) -> None:
    """One epoch, by processes of its own: what they had open does not reach into the next."""
    order = list(range(count))
    random.Random(f"{name}/{epoch}").shuffle(order)
    names = DataSet(1, count, OBJECT_BYTES)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(
            target=_work,
            args=(socket_path, [f"{prefix}{name}/{names.name(n)}" for n in order[rank::WORKERS]]),
        )
        for rank in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        if worker.exitcode:
            raise RuntimeError(f"a worker of the loader ended with {worker.exitcode}")


def _work(socket_path: str, uris: list[str]) -> None:
    with hotshard.connect(socket_path) as client:
        for uri in uris:
            with client.open(uri) as file:
                file.read(_HEAD_BYTES)
                file.seek(0)
                file.read()
            time.sleep(_COMPUTE_S)


def _numbered(lines: list[str]) -> Iterator[str]:
    yield f"# {TRAINING} + {VALIDATION} objects, {WORKERS} workers, room for half; see recorded.py"
    numbers: dict[str, int] = {}
    datasets: dict[str, int] = {}
    start_ms: int | None = None
    for line in lines:
        if line == "epoch":
            yield line
            continue
        at_ms, dataset, digest = line.split()
        start_ms = int(at_ms) if start_ms is None else start_ms
        number = numbers.setdefault(digest, len(numbers))
        yield f"{int(at_ms) - start_ms} {datasets.setdefault(dataset, len(datasets))} {number}"


if __name__ == "__main__":
    record(sys.argv[1])
