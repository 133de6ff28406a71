"""cluster.flight: 32 readers on 8 servers ask for one cold object at one time.

What counts is what the bucket sends: each block once, whoever asks for it and wherever. Needs root, as all
rows of several hosts do.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import Bench, Row, Sides, constant
from benchmarks.data import DataSet
from benchmarks.fleet.fleet import ORIGIN_BYTES, open_fleet
from benchmarks.load.passes import everything, together
from benchmarks.load.targets import CacheClient
from benchmarks.results import Measured
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better

_READERS = 4  # at each server


def _flight(bench: Bench, data: DataSet, count: int) -> Measured:
    directory = Path(tempfile.mkdtemp(prefix="fleet-", dir=bench.directory))
    alone = bench.sabotage is Sabotage.ALONE
    cluster = {"provider": "none"} if alone else {}
    with open_fleet(directory, count, cluster=cluster) as fleet:
        fleet.put(data.name(0), data.content(0, 0, data.object_bytes))
        if not alone:
            fleet.agree()
        specs = [CacheClient(s.address) for s in fleet.servers for _ in range(_READERS)]
        read_all = everything(data, [fleet.uri(data.name(0))], bench.sabotage)
        cost = together(specs, read_all, {s.name: s.pid for s in fleet.servers})
        received = [server.total(ORIGIN_BYTES) for server in fleet.servers]
        requests = fleet.total("hotshard_origin_requests_total", verb="GET", outcome="ok")
    return Measured(
        sum(received) / data.total_bytes,
        cost.seconds,
        len(specs) * data.total_bytes,
        cpu_s={
            "client": cost.cpu_s["client"],
            "server": sum(cost.cpu_s.values()) - cost.cpu_s["client"],
        },
        facts={
            "origin GETs": requests,
            "servers that read from the origin": sum(map(bool, received)),
            "GB/s of all readers": len(specs) * data.total_bytes / cost.seconds / 1e9,
        },
    )


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=17) << 20)
    count = bench.pick(full=8, quick=8, tiny=3)
    yield Sides(ours=lambda: _flight(bench, data, count), limits={"each byte once": constant(1.0)})


ROWS = (
    (
        Row(
            "cluster.flight",
            "32 readers on 8 servers ask for one cold object: what the origin sends",
            "x",
            1.0,
            _open,
            better=Better.LOWER,
            warm_up=False,
            sabotages=(Sabotage.ALONE, Sabotage.FLIP),
            quick=False,
            budget_s=45.0,
        ),
    )
    if os.geteuid() == 0
    else ()
)
