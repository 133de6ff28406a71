"""training.*: how busy accelerators are that eat as published models do, fed by hotshard and by others.

Each process is one accelerator with its loader (benchmarks/training). Hot: everything is resident, and the
limit is the same loader on plain files, which are the very files that are cached. First epoch: nothing is
cached, and the limit is the loader on the bucket itself.

Scaled to a small machine, with the bytes a second of each accelerator left as they are: U-Net3D's records
and steps are a sixteenth, ResNet-50's batches and steps a quarter, files are few. The numbers of
accelerators are such that two cores can feed them from the page cache.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench, Row, Scale, Side, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.load.crew import Crew
from benchmarks.load.objects import Place
from benchmarks.load.targets import CacheClient, DirectS3, Files, Sabotaged, TargetSpec
from benchmarks.node import Node
from benchmarks.results import Measured
from benchmarks.rows.mount import available, mounted
from benchmarks.rows.scene import Hot, Remote, connect, hot_files, in_s3, warm
from benchmarks.sabotage import Sabotage
from benchmarks.training.loader import Seen, Training
from benchmarks.training.models import COSMOFLOW, RESNET50, RETINANET, UNET3D, Model

_FILE_READ = 256 << 10  # TensorFlow's transfer of a record file
_S3_READ = 8 << 20  # what one does over a network


@dataclass(frozen=True, slots=True)
class Job:
    """A model as it runs here."""

    model: Model
    accelerators: int
    files: int
    epochs: int
    """Of a hot run."""
    tiny_divisor: int = 16

    def fit(self, bench: Bench) -> "Job":
        """In the size of the run."""
        if bench.scale is not Scale.TINY:
            return self
        tiny = self.model.scaled(self.tiny_divisor)
        records = 3 * tiny.workers * tiny.batch  # more batches than are under way at one time
        return Job(tiny, 1, -(-records // tiny.records_per_file), 1)

    def data(self, seed: int) -> DataSet:
        """Its files."""
        model = self.model
        size = model.record_bytes * model.records_per_file
        return DataSet(seed, self.files, size, model.record_stdev_bytes)

    def training(
        self, target: TargetSpec, place: Place, bench: Bench, read_bytes: int, *, epochs: int
    ) -> Training:
        """What each accelerator does."""
        return Training(target, place, self.model, bench.seed, read_bytes, epochs)


JOBS = (
    Job(UNET3D.scaled(16), 1, 63, 6),
    Job(RETINANET, 4, 1152, 2),
    Job(RESNET50.in_files_of(1200, batches=12), 4, 4, 2, tiny_divisor=64),
    Job(COSMOFLOW, 2, 192, 4),
)


def _measured(seen: Sequence[Seen]) -> Measured:
    """All accelerators of a run as one; the value is their utilisation in percent."""
    seconds = max(each.seconds for each in seen)
    stalls = sum(each.stall_s for each in seen)
    samples = sum(each.samples for each in seen)
    return Measured(
        100 * sum(each.au for each in seen) / len(seen),
        seconds,
        sum(each.payload_bytes for each in seen),
        samples,
        {"client": sum(each.cpu_s for each in seen)},
        {"samples/s": samples / seconds, "stall s": stalls / len(seen)},
    )


@contextmanager
def _open_hot(bench: Bench, job: Job) -> Iterator[Sides]:
    job = job.fit(bench)
    data = job.data(bench.seed)
    with ExitStack() as stack:
        if bench.scale is Scale.TINY:
            hot = stack.enter_context(hot_files(bench.directory, data))
            peers = {}
        else:
            remote = stack.enter_context(in_s3(bench.directory, data))
            node = stack.enter_context(remote.cold_node())
            client = stack.enter_context(connect(node))
            warm(client, remote.place)
            hot = Hot(node, remote.place, client)
            peers = _peers(stack, bench, job, remote, node)
        files = Place(data, f"file://{_linked(bench, hot)}/")
        limit = _side(
            stack, job.training(Files(), files, bench, _FILE_READ, epochs=job.epochs), job, None
        )
        ours = _side(stack, _spoiled(bench, job, hot.node, hot.place, job.epochs), job, hot.node)
        yield Sides(ours=ours, limits={"local files": limit}, peers=peers)


def _spoiled(bench: Bench, job: Job, node: Node, place: Place, epochs: int) -> Training:
    """Ours: slow as a whole, or wrong in its bytes, when that is asked for."""
    flip = bench.sabotage if bench.sabotage is Sabotage.FLIP else Sabotage.NONE
    target = Sabotaged(CacheClient(node.socket), flip)
    return Training(target, place, job.model, bench.seed, _FILE_READ, epochs, bench.sabotage)


def _peers(stack: ExitStack, bench: Bench, job: Job, remote: Remote, node: Node) -> dict[str, Side]:
    sides = {"the bucket": _side(stack, _direct(bench, job, remote, job.epochs), job, None)}
    if available():
        target = stack.enter_context(mounted(bench, node, remote.place.prefix, "auto"))
        below = Place(remote.place.data, f"{target}/")
        training = job.training(Files(keep_open=False), below, bench, _FILE_READ, epochs=job.epochs)
        sides["hotshard's mount"] = _side(stack, training, job, node)
    return sides


def _direct(bench: Bench, job: Job, remote: Remote, epochs: int) -> Training:
    bucket = DirectS3(remote.bucket, tuple(remote.server.environment.items()))
    return job.training(bucket, remote.place, bench, _S3_READ, epochs=epochs)


def _side(stack: ExitStack, training: Training, job: Job, node: Node | None) -> Side:
    crew = stack.enter_context(Crew(training, job.accelerators))

    def side() -> Measured:
        with Cost({} if node is None else {"server": node.pid}) as cost:
            measured = _measured(crew.run())
        server = {} if node is None else {"server": cost.cpu_s["server"]}
        return Measured(
            measured.value, measured.seconds, measured.payload_bytes, measured.operations,
            {**measured.cpu_s, **server}, measured.facts,
        )  # fmt: skip

    return side


def _linked(bench: Bench, hot: Hot) -> str:
    """The cached files under the names of their objects: one copy in the page cache serves both."""
    directory = os.path.join(bench.directory, "files")
    for index in range(hot.data.count):
        path = os.path.join(directory, hot.data.name(index))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.link(hot.cached_path(index), path)
    return directory


@contextmanager
def _open_first(bench: Bench, job: Job) -> Iterator[Sides]:
    job = job.fit(bench)
    with ExitStack() as stack:
        remote = stack.enter_context(in_s3(bench.directory, job.data(bench.seed)))
        limit = _side(stack, _direct(bench, job, remote, 1), job, None)

        def ours() -> Measured:
            with remote.cold_node() as node, ExitStack() as own:
                return _side(own, _spoiled(bench, job, node, remote.place, 1), job, node)()

        yield Sides(ours=ours, limits={"the bucket": limit})


_BELOW_FIRST = (
    "the accelerators want more than two cores can fetch, so what counts is CPU per GB: ours, checked, on"
    " the disk and handed on, needs 1.4 times that of obstore into memory (PERFORMANCE.md, Training)"
)
_BELOW_ONE_BY_ONE = (
    "its threads ask for 323 kB at a time, each in a message of its own with a plan, a flight and a seal:"
    " 1 ms of CPU of the server for each (PERFORMANCE.md, Cold)"
)
ROWS = (
    *(
        Row(
            f"training.{job.model.name}",
            f"accelerators busy, everything cached: {job.model.name}, {job.accelerators} of them",
            "% AU",
            0.95,
            partial(_open_hot, job=job),
            rounds=2,
            quick=False,
            budget_s=50.0,
        )
        for job in JOBS
    ),
    *(
        Row(
            f"training.{job.model.name}_first",
            f"accelerators busy in the first epoch, nothing cached: {job.model.name}",
            "% AU",
            0.8,
            partial(_open_first, job=job),
            below=_BELOW_ONE_BY_ONE if job.model is RETINANET else _BELOW_FIRST,
            rounds=3,
            warm_up=False,
            quick=False,
            budget_s=28.0,
        )
        for job in JOBS
    ),
)
