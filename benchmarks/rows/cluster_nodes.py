"""cluster.nodes, cluster.loss: servers in network namespaces that share one data set.

Every node has a reader that reads everything once. Cold, each block should come from the bucket once and
from a member for everybody else; warm, each node has a copy. All nodes share the processors of one machine,
so the aggregate throughput cannot grow with them: what can be seen here is what a gigabyte costs.

Needs root; elsewhere there are none.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Row, Scale, Sides, constant
from benchmarks.data import DataSet
from benchmarks.fleet.fleet import Fleet, Server, open_fleet
from benchmarks.load.passes import JOIN_S, Uris, everything, together
from benchmarks.load.targets import CacheClient, DirectS3, Target
from benchmarks.results import BenchError, Fact, Measured, Point
from benchmarks.rows.scene import Remote, in_s3
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better

_MIB = 1 << 20
_LONGEST_READ_S = (
    5.0  # an attempt at a member ends after 2 s and 0.8 s for a block, and then there is time
)


@contextmanager
def _fleet(bench: Bench, data: DataSet, count: int) -> Iterator[tuple[Fleet, Uris]]:
    directory = Path(tempfile.mkdtemp(prefix="fleet-", dir=bench.directory))
    with open_fleet(directory, count) as fleet:
        for index in range(data.count):
            fleet.put(data.name(index), data.content(index, 0, data.object_bytes))
        fleet.agree()
        yield fleet, [fleet.uri(data.name(index)) for index in range(data.count)]


def _pids(servers: Sequence[Server]) -> dict[str, int]:
    return {server.name: server.pid for server in servers}


def _cold_and_warm(bench: Bench, data: DataSet, sizes: Sequence[int]) -> Measured:
    """Both passes at every size; the value is the cold throughput of the largest cluster."""
    curves: dict[str, list[Point]] = {"cold": [], "warm": []}
    facts: dict[str, Fact] = {}
    taken: Measured | None = None
    for count in sizes:
        with _fleet(bench, data, count) as (fleet, uris):
            specs = [CacheClient(server.address) for server in fleet.servers]
            read_all = everything(data, uris, bench.sabotage)
            for name, points in curves.items():
                cost = together(specs, bench.sabotage.wrap(read_all), _pids(fleet.servers))
                payload = count * data.total_bytes
                points.append((count, sum(cost.cpu_s.values()) / payload * 1e9))
                rate = payload / cost.seconds / 1e9
                facts[f"{name} GB/s, {count} nodes"] = rate
                if name == "cold":
                    facts[f"origin bytes / unique, {count} nodes"] = (
                        fleet.origin_bytes() / data.total_bytes
                    )
                    taken = Measured(rate, cost.seconds, payload, cpu_s=_two(cost.cpu_s))
    if taken is None:
        raise BenchError("no size to measure")
    return Measured(
        taken.value,
        taken.seconds,
        taken.payload_bytes,
        cpu_s=taken.cpu_s,
        facts=facts,
        curves=curves,
    )


def _two(cpu_s: dict[str, float]) -> dict[str, float]:
    return {"client": cpu_s["client"], "server": sum(cpu_s.values()) - cpu_s["client"]}


@contextmanager
def _open_nodes(bench: Bench) -> Iterator[Sides]:
    data = DataSet(
        bench.seed, bench.pick(full=32, quick=8, tiny=2), bench.pick(full=8, quick=8, tiny=1) * _MIB
    )
    sizes = {Scale.FULL: (1, 2, 4, 8), Scale.QUICK: (1, 2), Scale.TINY: (2,)}[bench.scale]
    left = [sizes]  # the curve is drawn once; the rounds after it compare at the largest size only

    def ours() -> Measured:
        return _cold_and_warm(bench, data, left.pop() if left else sizes[-1:])

    with in_s3(bench.directory, data) as remote:
        yield Sides(
            ours=ours,
            limits={"as many readers on the bucket": lambda: _direct(remote, data, sizes[-1])},
        )


def _direct(remote: Remote, data: DataSet, count: int) -> Measured:
    spec = DirectS3(remote.bucket, tuple(remote.server.environment.items()))
    read_all = everything(data, remote.place.uris(), Sabotage.NONE)
    cost = together([spec] * count, read_all, {})
    payload = count * data.total_bytes
    return Measured(payload / cost.seconds / 1e9, cost.seconds, payload, cpu_s=dict(cost.cpu_s))


@contextmanager
def _open_loss(bench: Bench) -> Iterator[Sides]:
    """One of the nodes is killed while the readers of the others read what nobody has yet."""
    data = DataSet(
        bench.seed,
        bench.pick(full=48, quick=12, tiny=6),
        bench.pick(full=8, quick=8, tiny=1) * _MIB,
    )
    count = bench.pick(full=4, quick=3, tiny=3)

    def ours() -> Measured:
        with _fleet(bench, data, count) as (fleet, uris):
            lost, staying = fleet.servers[-1], fleet.servers[:-1]
            longest = [0.0] * len(staying)
            begun = threading.Event()

            def timed(target: Target, number: int) -> None:
                view = memoryview(bytearray(data.object_bytes))
                read_into = bench.sabotage.wrap_into(target.read_into)
                for step in range(data.count):
                    index = (number * data.count // 8 + step) % data.count
                    began_s = time.monotonic()
                    read = read_into(uris[index], view, 0)
                    longest[number] = max(longest[number], time.monotonic() - began_s)
                    data.check(index, 0, data.object_bytes, view[:read])
                    begun.set()

            def kill() -> None:
                begun.wait(JOIN_S)
                lost.kill()

            killer = threading.Thread(target=kill, daemon=True)
            killer.start()
            specs = [CacheClient(server.address) for server in staying]
            try:
                cost = together(specs, timed, _pids(staying))
            finally:  # readers that failed before they began leave it waiting
                begun.set()
                killer.join(JOIN_S)
        payload = len(staying) * data.total_bytes
        facts: dict[str, Fact] = {"GB/s": payload / cost.seconds / 1e9}
        return Measured(max(longest), cost.seconds, payload, cpu_s=_two(cost.cpu_s), facts=facts)

    yield Sides(ours=ours, limits={"the limit set": constant(_LONGEST_READ_S)})


ROWS = (
    (
        Row(
            "cluster.nodes",
            "8 nodes on one machine read everything, nothing cached: all of them together",
            "GB/s",
            1.0,
            _open_nodes,
            below="all servers and readers share two cores: ours reads each byte from the bucket once, and"
            " moves, checks and stores it at eight nodes, which a second pass is served from",
            warm_up=False,
            axes=("nodes", "CPU s/GB"),
            budget_s=60.0,
        ),
        Row(
            "cluster.loss",
            "longest read while one of 4 nodes is killed and the others read what nobody has",
            "s",
            1.0,
            _open_loss,
            better=Better.LOWER,
            warm_up=False,
            sabotages=(Sabotage.STALL, Sabotage.FLIP),
            quick=False,
            budget_s=25.0,
        ),
    )
    if os.geteuid() == 0
    else ()
)
