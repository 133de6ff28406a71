"""origin.*: cold data from S3 through the server, beside the fastest S3 client reading into memory.

Every run of ours starts a server with an empty cache. Our side does more than the limit: it checks what
arrives, writes it to the disk and hands it to a reader.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import hotshard
from benchmarks import engines
from benchmarks.bench import Bench, Row, Scale, Side, Sides, constant
from benchmarks.cost import Cost, peak_rss_bytes
from benchmarks.data import DataSet
from benchmarks.engines import Figure
from benchmarks.file_cache import FullFileCache
from benchmarks.results import BenchError, Measured
from benchmarks.rows.scene import Remote, connect, in_s3, warm
from benchmarks.sabotage import ReadInto, Sabotage
from benchmarks.stats import Better
from hotshard.core.errors import NotFound

_MIB = 1 << 20
_SMALL_BYTES = 100 << 10
_BLOCK_BYTES = 8 * _MIB  # the server's own, and the ranges of the engines
_IN_FLIGHT = 32
_BATCH = 1000  # bodies held at one time
_FILLS_IN_FLIGHT = 16  # what a prefetch may hold of the server's 32
_RSS_LIMIT_MIB = 300.0


_Use = Callable[[], None]  # before each timed run, of whichever side


@contextmanager
def _open_fill(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 4, bench.pick(full=256, quick=64, tiny=1) * _MIB)
    with in_s3(bench.directory, data) as remote, _in_use(bench, data) as use:
        limits = _engines(bench, remote, use, _FILLS_IN_FLIGHT, lambda figure: figure.gb_per_s)
        yield Sides(ours=lambda: _fill(remote, use, bench.sabotage), limits=limits)


def _fill(remote: Remote, use: _Use, sabotage: Sabotage) -> Measured:
    """Make the whole set resident, then (untimed) read all of it."""
    with remote.cold_node() as node, connect(node) as client:
        use()
        with Cost({"server": node.pid}) as cost:
            sabotage.wrap(warm)(client, remote.place)
        _check_all(remote, sabotage.wrap_into(client.read_into))
    total = remote.place.data.total_bytes
    return Measured(total / cost.seconds / 1e9, cost.seconds, total, 4, cost.cpu_s)


@contextmanager
def _open_small(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=2500, quick=1000, tiny=20), _SMALL_BYTES)
    with in_s3(bench.directory, data) as remote, _in_use(bench, data) as use:
        limits = _engines(bench, remote, use, _IN_FLIGHT, lambda figure: figure.objects_per_s)
        yield Sides(ours=lambda: _small(remote, use, bench.sabotage), limits=limits)


def _small(remote: Remote, use: _Use, sabotage: Sabotage) -> Measured:
    """What an epoch's first pass does: list the prefix, then read every object once, in batches."""
    prefix, settings = remote.place.prefix, {"fetch": {"concurrency": _IN_FLIGHT}}
    with remote.cold_node(**settings) as node, connect(node) as client:
        _ask_once(client, prefix)
        read_many = sabotage.wrap_bytes(client.read_many)
        list_uris = sabotage.wrap(lambda: [entry.uri for entry in client.list(prefix)])
        use()
        cost = Cost({"server": node.pid})
        with cost:
            uris = list_uris()
        data = remote.place.data
        if uris != remote.place.uris():
            raise BenchError(f"the listing has {len(uris)} names, {data.count} were uploaded")
        for start in range(0, data.count, _BATCH):
            with cost:
                bodies = read_many(uris[start : start + _BATCH])
            for number, body in enumerate(bodies):
                data.check(start + number, 0, data.object_bytes, body)
    count = data.count
    return Measured(count / cost.seconds, cost.seconds, data.total_bytes, count, cost.cpu_s)


def _ask_once(client: hotshard.Client, prefix: str) -> None:
    """Have the server's first requests to S3 behind it, as an engine has when its clock starts.

    An engine fetches eight objects before (engines.py); this asks for what is not there, so that the cache
    stays empty: the first request reads botocore's rules and certificates and finds the bucket.
    """
    nothing = f"{prefix}nothing/"
    if any(client.list(nothing)):
        raise BenchError(f"{nothing} is not empty")
    with suppress(NotFound):
        client.stat(f"{nothing}here")


@contextmanager
def _open_rss(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 16, bench.pick(full=256, quick=64, tiny=1) * _MIB)
    with in_s3(bench.directory, data) as remote:

        def ours() -> Measured:
            with remote.cold_node(spoiled=bench.sabotage) as node, connect(node) as client:
                with Cost({"server": node.pid}) as cost:
                    warm(client, remote.place)
                peak = peak_rss_bytes(node.pid)
                _check_all(remote, bench.sabotage.wrap_into(client.read_into))
            return Measured(peak / _MIB, cost.seconds, data.total_bytes, data.count, cost.cpu_s)

        yield Sides(ours=ours, limits={"the limit set": constant(_RSS_LIMIT_MIB)})


def _engines(
    bench: Bench, remote: Remote, use: _Use, in_flight: int, value: Callable[[Figure], float]
) -> dict[str, Side]:
    """S3 clients that get the same ranges of the same objects into memory."""
    data = remote.place.data
    load = engines.Load(
        remote.bucket, tuple(remote.keys()), data.object_bytes, _BLOCK_BYTES, in_flight
    )
    environment = dict(remote.server.environment)

    def side(engine: str) -> Measured:
        use()
        figure = engines.measure(engine, load, environment)
        cpu_s = {"client": figure.cpu_s}
        return Measured(value(figure), figure.seconds, figure.total_bytes, figure.objects, cpu_s)

    peers = engines.PEERS if bench.scale is Scale.FULL else engines.PEERS[1:2]
    return {engine: partial(side, engine) for engine in peers}


@contextmanager
def _in_use(bench: Bench, data: DataSet) -> Iterator[_Use]:
    """A machine whose file cache is full; small sizes do without, their figures are no measurement."""
    if bench.scale is not Scale.FULL:
        yield lambda: None
        return
    with FullFileCache(bench.directory) as cache:
        # The most that a run fills: the set in the file cache, and as bytes of a reader.
        yield lambda: cache.fill(2 * data.total_bytes)


def _check_all(remote: Remote, read_into: ReadInto) -> None:
    """Read every byte of the set and compare it."""
    data = remote.place.data
    view = memoryview(bytearray(_BLOCK_BYTES))
    for index in range(data.count):
        for offset in range(0, data.object_bytes, _BLOCK_BYTES):
            length = min(_BLOCK_BYTES, data.object_bytes - offset)
            count = read_into(remote.place.uri(index), view[:length], offset)
            data.check(index, offset, length, view[:count])


ROWS = (
    Row(
        "origin.fill",
        "cold objects of 256 MiB from S3 to the disk",
        "GB/s",
        0.8,
        _open_fill,
        below="S3 server and ours share two cores: a gigabyte received, checked, written and read back"
        " before it is sealed costs 0.48 to 0.82 s of CPU, and obstore 0.41 to 0.56 into memory"
        " (ADR 0009)",
        rounds=4,
        warm_up=False,
        budget_s=80.0,
    ),
    Row(
        "origin.small",
        "cold objects of 100 KiB from S3 to a reader, 32 in flight, listing included",
        "objects/s",
        0.8,
        _open_small,
        below="S3 server, ours and the reader share two cores: a bare loop that seals checked files needs"
        " 0.19 to 0.24 ms of CPU for an object, as much as obstore into memory; listing, plans, accounts,"
        " hand-overs and the reader come on top, which leaves 0.73 to 0.78 (ADR 0007)",
        rounds=5,
        warm_up=False,
        budget_s=75.0,
    ),
    Row(
        "origin.rss",
        "peak memory of the server while it fills 4 GiB",
        "MiB",
        1.0,
        _open_rss,
        better=Better.LOWER,
        rounds=1,  # three differed by 0.2%, and 4 GiB take their time
        warm_up=False,
        sabotages=(Sabotage.FLIP, Sabotage.FAT),
        budget_s=32.0,
    ),
)
