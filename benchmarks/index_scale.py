"""What a million shards cost the store: start-up, memory, seal; and what other ways to describe them would.

    python -m benchmarks.index_scale [--shards 1000000] [--directory DIR]

The functions return numbers and print nothing. The records are real, the shard files are not there (a
clean start does not look at them), except in `measure_unclean_start`, where they are and are empty.
"""

import argparse
import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cache_server.store import layout
from cache_server.store.options import CacheDir, Space, StoreEvents, StoreOptions
from cache_server.store.records import Records
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from cache_server.store.verify import Sums
from hotshard.core.blocks import Geometry
from hotshard.core.checksum import Algorithm
from hotshard.core.objects import ObjectInfo

GEOMETRY = Geometry()
_BATCH = 64  # shards to a commit: what group commit reaches with some tens of fills in flight
_SIZE = 100 << 10


@dataclass(frozen=True, slots=True)
class Start:
    """A start of the store over existing records."""

    seconds: float
    cpu_seconds: float
    """Of all threads: what the seconds would be with a core or two to itself."""
    ram_bytes_per_shard: float
    """Growth of the resident set while the store starts."""
    shards: int


@dataclass(frozen=True, slots=True)
class Description:
    """One way to keep a shard's description."""

    name: str
    seal_us: float
    """What it adds to a seal."""
    load_us: float
    """To read one back at the start, everything in the page cache."""
    disk_bytes: float
    """Per shard."""


def key_of(number: int) -> ShardKey:
    """A shard as an image dataset has them."""
    uri = f"s3://training-data/imagenet/train/n{number % 1000:08d}/image_{number:08d}.jpeg"
    version = f'"{number:032x}"'
    return ShardKey.of(ObjectInfo(uri, version, _SIZE, number), 0, GEOMETRY)


def write_records(directory: str, shards: int, *, clean: bool) -> float:
    """Make a cache directory with the records of so many shards; microseconds per shard."""
    layout.make(directory, layout.Identity(layout.FORMAT, layout.new_id(), layout.new_id()))
    order = list(range(shards))
    random.Random(1).shuffle(order)
    sums = Sums(Algorithm.XXH3_64, GEOMETRY.block_bytes, [1])
    records = Records(os.path.join(directory, layout.INDEX))
    spent_s = 0.0
    for start in range(0, shards, _BATCH):
        keys = [key_of(number) for number in order[start : start + _BATCH]]
        began_s = time.perf_counter()
        with records.transaction():
            for key in keys:
                records.insert(key, sums, 1)
        spent_s += time.perf_counter() - began_s
    with records.transaction():
        records.set_fact("generation", "1")
        records.set_fact("shard_bytes", str(GEOMETRY.shard_bytes))
        records.set_fact("stopped", layout.boot_id() if clean else "")
    records.close()
    return spent_s / shards * 1e6


def start(directory: str) -> Start:
    """Start the store in this process and measure it; best in a fresh process, see `measure_start`."""

    async def run() -> Start:
        store = Store(
            [CacheDir(directory, Space(1 << 50))],
            geometry=GEOMETRY,
            options=StoreOptions(dataset_of=_dataset_of),
            events=StoreEvents(),
        )
        before_bytes = _resident_bytes()
        began_s, cpu_began_s = time.perf_counter(), time.process_time()
        await store.start()
        seconds, cpu_s = time.perf_counter() - began_s, time.process_time() - cpu_began_s
        shards = sum(disk.shards for disk in store.disks())
        grown = (_resident_bytes() - before_bytes) / max(1, shards)
        await store.close()
        return Start(seconds, cpu_s, grown, shards)

    return asyncio.run(run())


def measure_start(directory: str) -> Start:
    """`start` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.index_scale", "--start", directory]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    seconds, cpu_seconds, ram_bytes = map(float, output[:3])
    return Start(seconds, cpu_seconds, ram_bytes, int(output[3]))


def measure_unclean_start(directory: str, shards: int) -> Start:
    """A start after kill -9: records and files are compared. Makes one empty file per shard."""
    write_records(directory, shards, clean=False)
    for number in range(shards):
        _touch(layout.sealed_path(directory, key_of(number).digest))
    return measure_start(directory)


def measure_sqlite(directory: str, files: int) -> Description:
    """index.db, as built."""
    seal_us = write_records(directory, files, clean=True)
    size = os.path.getsize(os.path.join(directory, layout.INDEX))
    records = Records(os.path.join(directory, layout.INDEX))
    began_s = time.perf_counter()
    count = sum(1 for _ in records.load_all())
    load_us = (time.perf_counter() - began_s) / count * 1e6
    records.close()
    return Description("SQLite per disk", seal_us, load_us, size / files)


def measure_xattr(directory: str, files: int) -> Description:
    """An extended attribute on the shard's file. ext4 keeps about 100 bytes in a 256-byte inode."""
    return _measure_per_file(
        "xattr",
        directory,
        files,
        write=_write_xattr,
        read=lambda p: os.getxattr(p, "user.hotshard"),
    )


def measure_sidecar(directory: str, files: int) -> Description:
    """A second file beside the shard's."""
    return _measure_per_file(
        "sidecar file", directory, files, write=_write_sidecar, read=_read_sidecar
    )


def _measure_per_file(
    name: str,
    directory: str,
    files: int,
    *,
    write: Callable[[str, bytes], None],
    read: Callable[[str], bytes],
) -> Description:
    texts = [_described(key_of(number)) for number in range(files)]
    paths = [os.path.join(directory, f"{number % 256:02x}", str(number)) for number in range(files)]
    for number in range(256):
        os.makedirs(os.path.join(directory, f"{number:02x}"), exist_ok=True)
    for path in paths:
        _touch(path)
    os.sync()
    before_bytes = _used_bytes(directory)
    began_s = time.perf_counter()
    for path, text in zip(paths, texts, strict=True):
        write(path, text)
    seal_us = (time.perf_counter() - began_s) / files * 1e6
    os.sync()
    grown = _used_bytes(directory) - before_bytes
    began_s = time.perf_counter()
    for path in paths:
        read(path)
    load_us = (time.perf_counter() - began_s) / files * 1e6
    return Description(name, seal_us, load_us, grown / files)


def _described(key: ShardKey) -> bytes:
    return f"{key.uri}\0{key.version}\0{key.index}\0{key.size}\0{key.mtime_ns}\0sums".encode()


def _write_xattr(path: str, text: bytes) -> None:
    os.setxattr(path, "user.hotshard", text)


def _write_sidecar(path: str, text: bytes) -> None:
    with open(path + ".meta", "wb", buffering=0) as file:
        file.write(text)


def _read_sidecar(path: str) -> bytes:
    with open(path + ".meta", "rb", buffering=0) as file:
        return file.read()


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))


def _used_bytes(directory: str) -> int:
    stats = os.statvfs(directory)
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize


def _resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _dataset_of(uri: str) -> str:
    return "/".join(uri.split("/", 5)[:5])


def report(shards: int, parent: str | None) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="hotshard-index-", dir=parent) as work:
        seal_us = write_records(work, shards, clean=True)
        begun = measure_start(work)
        print(f"{shards:,} shards: sqlite {sqlite3.sqlite_version}, uris in random order")
        print(f"  record, per seal      {seal_us:8.1f} us (commit shared by {_BATCH})")
        print(f"  clean start           {begun.seconds:8.2f} s (cpu {begun.cpu_seconds:.2f} s)")
        print(f"  memory per shard      {begun.ram_bytes_per_shard:8.0f} B of resident set")
        shutil.rmtree(work)
        os.mkdir(work)
        files = min(shards, 50_000)
        ways: Sequence[Callable[[str, int], Description]]
        ways = (measure_sqlite, measure_xattr, measure_sidecar)
        print(f"ways to keep the description, {files:,} shards, everything in memory:")
        for measure in ways:
            place = os.path.join(work, measure.__name__)
            os.mkdir(place)
            got = measure(place, files)
            print(
                f"  {got.name:16} seal +{got.seal_us:6.1f} us   load {got.load_us:5.1f} us"
                f"   disk {got.disk_bytes:6.0f} B"
            )


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--directory", help="where; default: the temp directory")
    parser.add_argument("--start", metavar="DIR", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        got = start(arguments.start)
        print(got.seconds, got.cpu_seconds, got.ram_bytes_per_shard, got.shards)
    else:
        report(arguments.shards, arguments.directory)


if __name__ == "__main__":
    _main()
