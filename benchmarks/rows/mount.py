"""mount.*: the same system calls on a mount and on plain files.

The data is hot: every object that is read is complete in the cache, names and attributes are known. The
limit's reads go to the very files that are cached. These rows need root and /dev/fuse; elsewhere there are
none.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.node import Node
from benchmarks.results import BenchError, Measured
from benchmarks.rows.scene import hot_files, served_files
from benchmarks.sabotage import Buffer, Sabotage
from hotshard.mount import device
from hotshard.mount.command import mount
from hotshard.mount.config import MountOptions

_MIB = 1 << 20
_PAGE = 4096
_SMALL_BYTES = 100 << 10
_CHECKED = 50  # reads compared after each timed run

ReadAt = Callable[[int, Buffer, int], int]
"""(descriptor, buffer, offset) -> bytes read."""
ReadFile = Callable[[str, Buffer, int], int]
"""(path, buffer, offset) -> bytes read."""


@contextmanager
def mounted(bench: Bench, node: Node, prefix: str, mode: str) -> Iterator[str]:
    """Our mount of a prefix."""
    target = os.path.join(bench.directory, "mnt")
    os.makedirs(target)
    options = MountOptions(address=node.socket, mode=mode, immutable=True)
    mount(prefix, target, options)
    try:
        yield target
    finally:
        device.unmount(target, lazy=True)


@contextmanager
def _open_reads(bench: Bench, read_bytes: int, mode: str) -> Iterator[Sides]:
    data = DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=2) * _MIB)
    offsets = list(range(0, data.object_bytes, read_bytes))
    if read_bytes == _PAGE:
        count = bench.pick(full=200_000, quick=100_000, tiny=200)
        offsets = random.Random(bench.seed).choices(offsets, k=count)
    else:
        offsets *= bench.pick(full=10, quick=20, tiny=2)
    with (
        hot_files(bench.directory, data) as hot,
        mounted(bench, hot.node, hot.place.prefix, mode) as target,
    ):
        ours = os.path.join(target, data.name(0))

        def timed(path: str, read: ReadAt) -> Measured:
            view = memoryview(bytearray(read_bytes))
            with open(path, "rb", buffering=0) as file:
                fd = file.fileno()
                with Cost({"server": hot.node.pid}) as cost:
                    for offset in offsets:
                        read(fd, view, offset)
                for offset in offsets[:_CHECKED]:
                    count = read(fd, view, offset)
                    data.check(0, offset, read_bytes, view[:count])
            worth = read_bytes / 1e9 if read_bytes >= _MIB else 1.0
            count = len(offsets)
            rate = count * worth / cost.seconds
            return Measured(rate, cost.seconds, count * read_bytes, count, cost.cpu_s)

        read_ours = bench.sabotage.wrap_into(_read_at)
        native = partial(timed, hot.cached_path(0), _read_at)
        yield Sides(ours=partial(timed, ours, read_ours), limits={"cached file": native})


def _read_at(fd: int, view: Buffer, offset: int) -> int:
    return os.preadv(fd, (view,), offset)


@contextmanager
def _open_small(bench: Bench, mode: str) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=2000, quick=500, tiny=20), _SMALL_BYTES)
    order = random.Random(bench.seed).sample(range(data.count), data.count)
    with (
        hot_files(bench.directory, data) as hot,
        mounted(bench, hot.node, hot.place.prefix, mode) as target,
    ):
        ours = [os.path.join(target, data.name(index)) for index in order]
        theirs = [hot.cached_path(index) for index in order]

        def timed(paths: list[str], read: ReadFile) -> Measured:
            view = memoryview(bytearray(_SMALL_BYTES))
            with Cost({"server": hot.node.pid}) as cost:
                for path in paths:
                    read(path, view, 0)
            for index, path in list(zip(order, paths, strict=True))[:_CHECKED]:
                count = read(path, view, 0)
                data.check(index, 0, _SMALL_BYTES, view[:count])
            total = len(paths) * _SMALL_BYTES
            return Measured(len(paths) / cost.seconds, cost.seconds, total, len(paths), cost.cpu_s)

        read_ours = bench.sabotage.wrap_into(read_file)
        native = partial(timed, theirs, read_file)
        yield Sides(ours=partial(timed, ours, read_ours), limits={"cached files": native})


def read_file(path: str, view: Buffer, offset: int) -> int:
    """Open, read, close."""
    fd = os.open(path, os.O_RDONLY)
    count = os.preadv(fd, (view,), offset)
    os.close(fd)
    return count


@contextmanager
def _open_walk(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, bench.pick(full=100_000, quick=20_000, tiny=50), 1)
    with (  # nothing is resident: names and attributes are all that is asked for
        served_files(bench.directory, data) as (node, place),
        mounted(bench, node, place.prefix, "auto") as target,
    ):
        walk = bench.sabotage.wrap(_walk)

        def timed(root: str, walk: Callable[[str], int]) -> Measured:
            with Cost({"server": node.pid}) as cost:
                count = walk(root)
            if count != data.count:
                raise BenchError(f"{count} files below {root}, not {data.count}")
            return Measured(count / cost.seconds, cost.seconds, 0, count, cost.cpu_s)

        native = partial(timed, os.path.join(bench.directory, "origin"), _walk)
        yield Sides(ours=partial(timed, target, walk), limits={"plain files": native})


def _walk(root: str) -> int:
    count = 0
    for directory in os.scandir(root):
        for entry in os.scandir(directory.path):
            entry.stat()
            count += 1
    return count


def available() -> bool:
    """Whether anything can be mounted here."""
    return os.geteuid() == 0 and os.path.exists("/dev/fuse")


ROWS = (
    (
        Row(
            "mount.seq_1m",
            "hot file on the mount by FUSE passthrough, 1 MiB reads in order",
            "GB/s",
            0.95,
            partial(_open_reads, read_bytes=_MIB, mode="passthrough"),
            rounds=9,
            budget_s=10.0,
        ),
        Row(
            "mount.rand_4k",
            "hot file on the mount by FUSE passthrough, 4 KiB reads at random",
            "reads/s",
            0.95,
            partial(_open_reads, read_bytes=_PAGE, mode="passthrough"),
            rounds=9,
            below="a passthrough read runs six more functions of the kernel than a native one; none of our"
            " code runs in it (ADR 0004)",
            budget_s=12.0,
        ),
        Row(
            "mount.seq_1m_cached",
            "hot file on the mount without passthrough, as on Linux 6.1, 1 MiB reads in order",
            "GB/s",
            0.25,
            partial(_open_reads, read_bytes=_MIB, mode="cached"),
            rounds=5,
            below="all bytes come from the kernel's page cache, which FUSE keeps in pages of 4 KiB and ext4"
            " in large folios; none of our code runs in it (ADR 0004)",
            budget_s=10.0,
        ),
        Row(
            "mount.small",
            "hot files of 100 KiB in random order, default mode: open, read, close",
            "files/s",
            0.5,
            partial(_open_small, mode="auto"),
            rounds=5,
            budget_s=10.0,
        ),
        Row(
            "mount.small_passthrough",
            "hot files of 100 KiB in random order by passthrough, as when files may change",
            "files/s",
            0.2,
            partial(_open_small, mode="passthrough"),
            rounds=5,
            below="an open that has to be asked for is a round trip to a process of Python"
            " (ADR 0004); `immutable` mounts, as in mount.small, do not ask",
            budget_s=10.0,
        ),
        Row(
            "mount.walk",
            "readdir and stat of every file, the listing known",
            "files/s",
            0.3,
            _open_walk,
            rounds=5,
            sabotages=(Sabotage.SLOW,),
            budget_s=25.0,
        ),
    )
    if available()
    else ()
)
