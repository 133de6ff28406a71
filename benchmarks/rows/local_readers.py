"""local.readers_8: eight training processes on one server, beside eight that read plain files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.load.crew import Crew, Load, together
from benchmarks.load.targets import CacheClient, Files, Sabotaged
from benchmarks.load.workloads import Kind, Workload
from benchmarks.results import Measured
from benchmarks.rows.scene import hot_files

_MIB = 1 << 20


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=128, quick=32, tiny=4), 4 * _MIB)
    seconds = bench.pick(full=2000, quick=500, tiny=50) / 1000
    readers = bench.pick(full=8, quick=8, tiny=2)
    workload = Workload(Kind.EPOCHS, _MIB, bench.seed)
    with hot_files(bench.directory, data) as hot:
        target = Sabotaged(CacheClient(hot.node.socket), bench.sabotage)
        through_client = Load(target, hot.place, workload, seconds)
        native = Load(Files(), hot.place, workload, seconds)
        with Crew(through_client, readers) as ours, Crew(native, readers) as limit:

            def run() -> Measured:
                with Cost({"server": hot.node.pid}) as cost:
                    measured = together(ours.run())
                return replace(measured, cpu_s={**measured.cpu_s, "server": cost.cpu_s["server"]})

            yield Sides(
                ours=run, limits={"preadv in as many processes": lambda: together(limit.run())}
            )


ROWS = (
    Row(
        "local.readers_8",
        "8 processes on one server, shuffled epochs over 4 MiB objects, 1 MiB reads",
        "GB/s",
        0.9,
        _open,
        rounds=5,
        budget_s=40.0,
    ),
)
