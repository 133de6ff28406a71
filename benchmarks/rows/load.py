"""load.*: what the load generator shows that a single reader does not: tails, and everybody at once.

load.p99 reads at a constant rate while a neighbour reads everything as fast as it can, through the same
server; the limit does the same on plain files. A latency counts from when a call was due. load.restore is a
checkpoint that all ranks of a node load at the same time.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from benchmarks.bench import Bench, Row, Side, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.load import latency
from benchmarks.load.crew import Crew, Load, Share, together
from benchmarks.load.objects import Found
from benchmarks.load.passes import everything
from benchmarks.load.passes import together as all_together
from benchmarks.load.targets import CacheClient, DirectS3, Files, Sabotaged, TargetSpec
from benchmarks.load.workloads import Kind, Workload
from benchmarks.results import Fact, Measured
from benchmarks.rows.scene import hot_files, in_s3
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better

_MIB = 1 << 20
_READ = 128 << 10
_RANKS = 4
_NEIGHBOUR_LONGER_S = 0.2


@contextmanager
def _open_p99(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=64, quick=16, tiny=4), 4 * _MIB)
    seconds = bench.pick(full=3000, quick=1000, tiny=100) / 1000
    rate = bench.pick(full=1000, quick=1000, tiny=2000)
    with hot_files(bench.directory, data) as hot, ExitStack() as stack:
        client = CacheClient(hot.node.socket)
        spoiled = Sabotaged(client, bench.sabotage)

        def side(target: TargetSpec, noisy: TargetSpec) -> Side:
            random = Workload(Kind.RANDOM, _READ, bench.seed)
            everything_read = Workload(Kind.SEQUENTIAL, _MIB, bench.seed)
            steady = Load(target, hot.place, random, seconds, rate)
            noise = Load(noisy, hot.place, everything_read, seconds + _NEIGHBOUR_LONGER_S)
            crew = stack.enter_context(Crew(steady, 1))
            neighbour = stack.enter_context(Crew(noise, 1))
            return lambda: _tail(crew, neighbour)

        yield Sides(
            ours=side(spoiled, client), limits={"preadv beside the same": side(Files(), Files())}
        )


def _tail(crew: Crew[Share], neighbour: Crew[Share]) -> Measured:
    """The 99th percentile in microseconds; the others are facts."""
    neighbour.start()
    measured = together(crew.run())
    beside = together(neighbour.finish())
    found = latency.percentiles_ns(measured.histogram)
    facts: dict[str, Fact] = {f"p{percent:g} us": ns / 1e3 for percent, ns in found.items()}
    facts["neighbour GB/s"] = beside.value
    return replace(measured, value=found[99.0] / 1e3, facts=facts)


@contextmanager
def _open_restore(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 4, bench.pick(full=128, quick=32, tiny=1) * _MIB)
    seconds = bench.pick(full=1500, quick=500, tiny=50) / 1000
    ranks = bench.pick(full=_RANKS, quick=_RANKS, tiny=2)
    workload = Workload(Kind.RESTORE, 8 * _MIB, bench.seed)
    with hot_files(bench.directory, data) as hot:
        target = Sabotaged(CacheClient(hot.node.socket), bench.sabotage)
        files = [hot.cached_path(index) for index in range(data.count)]
        sizes = [data.size(index) for index in range(data.count)]
        ours = Load(target, hot.place, workload, seconds)
        native = Load(Files(), Found(files, sizes, data), workload, seconds)
        with Crew(ours, ranks) as through, Crew(native, ranks) as limit:
            yield Sides(
                ours=lambda: together(through.run()),
                limits={"preadv in as many processes": lambda: together(limit.run())},
            )


@contextmanager
def _open_restore_cold(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 4, bench.pick(full=128, quick=32, tiny=1) * _MIB)
    with in_s3(bench.directory, data) as remote:
        uris = remote.place.uris()
        payload = _RANKS * data.total_bytes

        def measured(cost: Cost) -> Measured:
            rate = payload / cost.seconds / 1e9
            return Measured(rate, cost.seconds, payload, cpu_s=dict(cost.cpu_s))

        def ours() -> Measured:
            with remote.cold_node() as node:
                read_all = bench.sabotage.wrap(everything(data, uris, bench.sabotage))
                specs = [CacheClient(node.socket)] * _RANKS
                return measured(all_together(specs, read_all, {"server": node.pid}))

        def direct() -> Measured:
            spec = DirectS3(remote.bucket, tuple(remote.server.environment.items()))
            read_all = everything(data, uris, Sabotage.NONE)
            return measured(all_together([spec] * _RANKS, read_all, {}))

        yield Sides(ours=ours, limits={"as many readers on the bucket": direct})


ROWS = (
    Row(
        "load.p99",
        "128 KiB at random, 1,000 a second, beside a noisy neighbour: the 99th percentile",
        "us",
        0.8,
        _open_p99,
        better=Better.LOWER,
        rounds=5,
        sabotages=(Sabotage.SLOW, Sabotage.FLIP),
        budget_s=50.0,
    ),
    Row(
        "load.restore",
        "a hot checkpoint of 512 MiB, all of it by 4 ranks at once",
        "GB/s",
        0.9,
        _open_restore,
        quick=False,
        budget_s=25.0,
    ),
    Row(
        "load.restore_cold",
        "a checkpoint that nobody has, all of it by 4 ranks at once",
        "GB/s",
        1.0,
        _open_restore_cold,
        warm_up=False,
        quick=False,
        budget_s=30.0,
    ),
)
