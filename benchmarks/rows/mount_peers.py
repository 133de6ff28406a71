"""mount_peers.*: our mount of a bucket beside other FUSE mounts of it, all of them warm.

The limit of these rows is the best of the peers that are installed here; the others are recorded with it.
One that does not run is named, with the reason, and left out.
"""

import os
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from benchmarks import peers
from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.results import BenchError, Measured
from benchmarks.rows.mount import available, mounted, read_file
from benchmarks.rows.scene import Remote, connect, in_s3, warm
from benchmarks.sabotage import Sabotage

_MIB = 1 << 20
_PAGE = 4096
_CHECKED = 30

Work = Callable[[str], Measured]
"""Measures what lies in a directory."""


@contextmanager
def _beside(bench: Bench, data: DataSet, ours: Work, theirs: Work) -> Iterator[Sides]:
    with ExitStack() as stack:
        remote = stack.enter_context(in_s3(bench.directory, data))
        node = stack.enter_context(remote.cold_node())
        with connect(node) as client:
            warm(client, remote.place)
        target = stack.enter_context(mounted(bench, node, remote.place.prefix, "auto"))
        limits = {}
        for name in peers.PEERS:
            path = _peer(stack, name, remote, os.path.join(bench.directory, name), theirs)
            if path is not None:
                limits[name] = partial(theirs, path)
        if not limits:
            raise BenchError("none of the peers runs here")
        yield Sides(ours=partial(ours, target), limits=limits)


def _peer(stack: ExitStack, name: str, remote: Remote, directory: str, work: Work) -> str | None:
    """Mount a peer and let it read everything once; None: it does not run."""
    if peers.program(name) is None:
        sys.stderr.write(f"  {name}: skipped, not installed\n")
        return None
    try:
        path = stack.enter_context(peers.mounted(name, remote, directory))
        work(path)
    except (BenchError, OSError) as error:
        sys.stderr.write(f"  {name}: skipped, {error}\n")
        return None
    return path


@contextmanager
def _open_small(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=1000, quick=300, tiny=10), 100 << 10)
    order = random.Random(bench.seed).sample(range(data.count), data.count)

    def work(root: str, read: Callable[..., int] = read_file) -> Measured:
        paths = [os.path.join(root, data.name(index)) for index in order]
        view = memoryview(bytearray(data.object_bytes))
        with Cost() as cost:
            for path in paths:
                read(path, view, 0)
        for index, path in list(zip(order, paths, strict=True))[:_CHECKED]:
            count = read(path, view, 0)
            data.check(index, 0, data.object_bytes, view[:count])
        total = len(paths) * data.object_bytes
        return Measured(len(paths) / cost.seconds, cost.seconds, total, len(paths), cost.cpu_s)

    spoiled = partial(work, read=bench.sabotage.wrap_into(read_file))
    with _beside(bench, data, spoiled, work) as sides:
        yield sides


@contextmanager
def _open_reads(bench: Bench, read_bytes: int, *, daemon: bool = False) -> Iterator[Sides]:
    """`daemon`: what the kernel has kept of the mounts' files is dropped before every run.

    The reads then go to the daemons, whose own files in their cache directories stay as warm as they are.
    """
    data = DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=2) * _MIB)
    offsets = list(range(0, data.object_bytes, read_bytes))
    if read_bytes == _PAGE:
        count = bench.pick(full=50_000, quick=20_000, tiny=100) // (10 if daemon else 1)
        offsets = random.Random(bench.seed).choices(offsets, k=count)
    else:
        offsets *= 1 if daemon else bench.pick(full=4, quick=4, tiny=1)

    def work(root: str, read: Callable[..., int] = _read_at) -> Measured:
        view = memoryview(bytearray(read_bytes))
        with open(os.path.join(root, data.name(0)), "rb", buffering=0) as file:
            if daemon:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with Cost() as cost:
                for offset in offsets:
                    read(file.fileno(), view, offset)
            for offset in offsets[:_CHECKED]:
                count = read(file.fileno(), view, offset)
                data.check(0, offset, read_bytes, view[:count])
        total = len(offsets) * read_bytes
        worth = read_bytes / 1e9 if read_bytes >= _MIB else 1.0
        rate = len(offsets) * worth / cost.seconds
        return Measured(rate, cost.seconds, total, len(offsets), cost.cpu_s)

    spoiled = partial(work, read=bench.sabotage.wrap_into(_read_at))
    with _beside(bench, data, spoiled, work) as sides:
        yield sides


def _read_at(fd: int, view: memoryview, offset: int) -> int:
    return os.preadv(fd, (view,), offset)


@contextmanager
def _open_walk(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=5000, quick=1000, tiny=20), 1)

    def work(root: str, walk: Callable[[str], int] = _walk) -> Measured:
        with Cost() as cost:
            count = walk(root)
        if count != data.count:
            raise BenchError(f"{count} files below {root}, not {data.count}")
        return Measured(count / cost.seconds, cost.seconds, 0, count, cost.cpu_s)

    spoiled = partial(work, walk=bench.sabotage.wrap(_walk))
    with _beside(bench, data, spoiled, work) as sides:
        yield sides


def _walk(root: str) -> int:
    count = 0
    for directory, _, names in os.walk(root):
        for name in names:
            os.stat(os.path.join(directory, name))
            count += 1
    return count


_BELOW_IN_KERNEL = (
    "warm, every mount is served by the kernel out of pages it has, and none of our code runs: no way is"
    " quicker than the others beyond the noise (ADR 0004)"
)
ROWS = (
    (
        Row(
            "mount_peers.small",
            "warm files of 100 KiB on our mount in random order, beside other mounts of the bucket",
            "files/s",
            2.0,
            _open_small,
            rounds=5,
            quick=False,
            budget_s=35.0,
        ),
        Row(
            "mount_peers.seq_1m",
            "warm file on our mount, 1 MiB reads in order, beside other mounts",
            "GB/s",
            1.0,
            partial(_open_reads, read_bytes=_MIB),
            below=_BELOW_IN_KERNEL,
            rounds=5,
            quick=False,
            budget_s=25.0,
        ),
        Row(
            "mount_peers.rand_4k",
            "warm file on our mount, 4 KiB reads at random, beside other mounts",
            "reads/s",
            1.0,
            partial(_open_reads, read_bytes=_PAGE),
            below=_BELOW_IN_KERNEL,
            rounds=5,
            quick=False,
            budget_s=25.0,
        ),
        Row(
            "mount_peers.seq_1m_daemon",
            "1 MiB reads in order, none from the page cache of the mount, beside other mounts",
            "GB/s",
            2.0,
            partial(_open_reads, read_bytes=_MIB, daemon=True),
            rounds=5,
            quick=False,
            budget_s=25.0,
        ),
        Row(
            "mount_peers.rand_4k_daemon",
            "4 KiB reads at random, few from the page cache of the mount, beside other mounts",
            "reads/s",
            2.0,
            partial(_open_reads, read_bytes=_PAGE, daemon=True),
            rounds=5,
            quick=False,
            budget_s=25.0,
        ),
        Row(
            "mount_peers.walk",
            "walk and stat of every file on our mount, beside other mounts",
            "files/s",
            1.0,
            _open_walk,
            rounds=5,
            quick=False,
            sabotages=(Sabotage.SLOW,),
            budget_s=35.0,
        ),
    )
    if available() and peers.installed()
    else ()
)
