"""S3 clients measured against each other: which engine should carry the bytes of a cold read?

Each run is a process of its own: it makes its client, fetches a little to warm up, then fetches every
range of the load with a given number in flight, and reports the seconds and its own CPU seconds. The
server is another process, and its CPU time is not counted. All read into memory, as their users do;
`hotshard` is the origin as the cache server runs it, with checksums, into files on the disk, and
`hotshard-memory` the same into memory files.

    python -m benchmarks.engines            # both loads, all engines, a table
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from benchmarks import engine_peers
from benchmarks.results import BenchError

_MIB = 1 << 20
_RUN_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to fetch."""

    bucket: str
    keys: tuple[str, ...]
    object_bytes: int
    range_bytes: int
    """Ranges of this length; at least the object: whole objects."""
    in_flight: int

    def ranges(self) -> Iterator[tuple[str, int, int]]:
        """Key, offset and length of each request."""
        for key in self.keys:
            for offset in range(0, self.object_bytes, self.range_bytes):
                yield key, offset, min(self.range_bytes, self.object_bytes - offset)

    @property
    def total_bytes(self) -> int:
        """All bytes of it."""
        return len(self.keys) * self.object_bytes


@dataclass(frozen=True, slots=True)
class Figure:
    """What one run took."""

    seconds: float
    cpu_s: float
    """User and system time of the client process, all its threads."""
    total_bytes: int
    objects: int

    @property
    def gb_per_s(self) -> float:
        """Throughput."""
        return self.total_bytes / self.seconds / 1e9

    @property
    def objects_per_s(self) -> float:
        """Rate."""
        return self.objects / self.seconds

    @property
    def cpu_s_per_gb(self) -> float:
        """Price."""
        return self.cpu_s / self.total_bytes * 1e9


Fetch = Callable[[str, int, int], Awaitable[int]]
"""Fetch a range (key, offset, length); how many bytes came."""
Open = Callable[[Load, AsyncExitStack], Awaitable[Fetch]]


def measure(engine: str, load: Load, environment: dict[str, str]) -> Figure:
    """Run one engine once over a load.

    Args:
        engine: one of ENGINES.
        load: what to fetch; the objects exist.
        environment: the AWS variables of the server, AWS_ENDPOINT_URL_S3 among them.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engines", "--run", engine],
        input=json.dumps(asdict(load)),
        env={**os.environ, **environment, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=_RUN_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"{engine} failed: {done.stderr[-2000:]}")
    return Figure(**json.loads(done.stdout))


# -- the engines ---------------------------------------------------------------------------------


async def _aiobotocore(load: Load, exits: AsyncExitStack) -> Fetch:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    config = AioConfig(max_pool_connections=load.in_flight, s3={"addressing_style": "path"})
    client: Any = await exits.enter_async_context(AioSession().create_client("s3", config=config))

    async def fetch(key: str, offset: int, length: int) -> int:
        wanted = f"bytes={offset}-{offset + length - 1}"
        reply = await client.get_object(Bucket=load.bucket, Key=key, Range=wanted)
        return len(await reply["Body"].read())

    return fetch


async def _obstore(load: Load, _: AsyncExitStack) -> Fetch:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        load.bucket,
        endpoint=os.environ["AWS_ENDPOINT_URL_S3"],
        client_options={"allow_http": True},
    )

    async def fetch(key: str, offset: int, length: int) -> int:
        return len(await obstore.get_range_async(store, key, start=offset, length=length))

    return fetch


async def _awscrt(load: Load, _: AsyncExitStack) -> Fetch:
    """Its S3Client cuts a whole object into ranges itself; so one call fetches one object."""
    from awscrt.auth import AwsCredentialsProvider
    from awscrt.http import HttpHeaders, HttpRequest
    from awscrt.io import ClientBootstrap, DefaultHostResolver, EventLoopGroup
    from awscrt.s3 import S3Client, S3RequestTlsMode, S3RequestType

    group = EventLoopGroup()
    client = S3Client(
        bootstrap=ClientBootstrap(group, DefaultHostResolver(group)),
        region=os.environ["AWS_REGION"],
        tls_mode=S3RequestTlsMode.DISABLED,
        credential_provider=AwsCredentialsProvider.new_static(
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        ),
        part_size=8 * _MIB,
        max_active_connections_override=load.in_flight,
    )
    host = os.environ["AWS_ENDPOINT_URL_S3"].removeprefix("http://")

    async def fetch(key: str, offset: int, length: int) -> int:
        received = 0

        def on_body(chunk: bytes, **_: Any) -> None:
            nonlocal received
            received += len(chunk)

        headers = HttpHeaders([("host", host)])
        if length < load.object_bytes:
            headers.add("range", f"bytes={offset}-{offset + length - 1}")
        request = HttpRequest("GET", f"/{load.bucket}/{key}", headers)
        call = client.make_request(type=S3RequestType.GET_OBJECT, request=request, on_body=on_body)
        finished: Future[None] = call.finished_future
        await asyncio.wrap_future(finished)
        return received

    return fetch


async def _hotshard(load: Load, exits: AsyncExitStack, *, in_memory: bool = False) -> Fetch:
    from cache_server.origins.origin import Target, Want
    from cache_server.origins.s3 import S3Options, S3Origin

    prefix = f"s3://{load.bucket}/"
    origin = S3Origin(S3Options(prefix, concurrency=load.in_flight, addressing="path"))
    exits.push_async_callback(origin.close)
    await origin.start()
    infos = {key: await origin.stat(prefix + key) for key in load.keys[:8]}
    version_known = infos[load.keys[0]]  # all objects hold the same bytes: one ETag serves for all
    infos = {key: replace(version_known, uri=prefix + key) for key in load.keys}
    directory = exits.enter_context(tempfile.TemporaryDirectory(prefix="hotshard-engines-"))
    files: dict[str, int] = {}

    async def fetch(key: str, offset: int, length: int) -> int:
        fd = files.get(key)
        if fd is None:
            path = os.path.join(directory, str(len(files)))
            fd = os.memfd_create(key) if in_memory else os.open(path, os.O_RDWR | os.O_CREAT)
            files[key] = fd
        await origin.fetch(Want(infos[key], offset, length), Target(fd, offset))
        if length == load.object_bytes:
            os.close(files.pop(key))
        return length

    return fetch


async def _hotshard_memory(load: Load, exits: AsyncExitStack) -> Fetch:
    return await _hotshard(load, exits, in_memory=True)


ENGINES: dict[str, Open] = {
    "aiobotocore": _aiobotocore,
    "obstore": _obstore,
    "awscrt": _awscrt,
    "hotshard": _hotshard,
    "hotshard-memory": _hotshard_memory,
    "boto3": engine_peers.boto3,
    "s3fs": engine_peers.s3fs,
    "whole": engine_peers.whole_objects,
    "redis": engine_peers.redis,
}
CANDIDATES = ("aiobotocore", "obstore", "awscrt", "hotshard", "hotshard-memory")
PEERS = ("aiobotocore", "obstore", "awscrt")


# -- one run, in its process ---------------------------------------------------------------------


async def _run(engine: str, load: Load) -> Figure:
    async with AsyncExitStack() as exits:
        fetch = await ENGINES[engine](load, exits)
        if engine == "awscrt":
            load = replace(load, range_bytes=load.object_bytes)
        await _all(fetch, replace(load, keys=load.keys[: max(1, min(8, len(load.keys) // 4))]))
        before, began = time.process_time(), time.perf_counter()
        received = await _all(fetch, load)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - before
    if received != load.total_bytes:
        raise SystemExit(f"{engine} received {received} of {load.total_bytes} bytes")
    return Figure(seconds, cpu_s, received, len(load.keys))


async def _all(fetch: Fetch, load: Load) -> int:
    ranges = load.ranges()
    total = 0

    async def worker() -> None:
        nonlocal total
        for key, offset, length in ranges:
            received = await fetch(key, offset, length)
            total += received

    async with asyncio.TaskGroup() as group:
        for _ in range(load.in_flight):
            group.create_task(worker())
    return total


# -- the table -----------------------------------------------------------------------------------


def upload(boto: Any, bucket: str, count: int, object_bytes: int) -> tuple[str, ...]:
    """Put `count` equal objects; their keys."""
    body = os.urandom(object_bytes)
    keys = tuple(f"{object_bytes}/{number:05}" for number in range(count))
    for key in keys:
        boto.put_object(Bucket=bucket, Key=key, Body=body)
    return keys


def medians(loads: dict[str, Load], environment: dict[str, str], runs: int) -> list[list[str]]:
    """Rows of a table: the engines in turn, `runs` times over."""
    rows = []
    for title, load in loads.items():
        figures: dict[str, list[Figure]] = {engine: [] for engine in CANDIDATES}
        for _ in range(runs):
            for engine, measured in figures.items():
                measured.append(measure(engine, load, environment))
        small = load.object_bytes < _MIB
        best = max(statistics.median(f.objects_per_s for f in figures[engine]) for engine in PEERS)
        for engine, measured in figures.items():
            rate = statistics.median(f.objects_per_s for f in measured)
            cpu = statistics.median(f.cpu_s_per_gb for f in measured)
            speed = f"{rate:.0f} /s" if small else f"{rate * load.object_bytes / 1e9:.2f} GB/s"
            rows.append([title, engine, speed, f"{rate / best:.2f}", f"{cpu:.2f}"])
    return rows


def main() -> None:
    """Print the table, or do the one run that `measure` asks for."""
    parser = argparse.ArgumentParser(description="S3 clients against each other")
    parser.add_argument("--run", choices=sorted(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=3, help="runs of each engine (median)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the loads")
    options = parser.parse_args()
    if options.run:
        import uvloop

        fields = json.load(sys.stdin)
        load = Load(**{**fields, "keys": tuple(fields["keys"])})
        print(json.dumps(asdict(uvloop.run(_run(options.run, load)))))
        return
    _table(options.runs, options.scale)


def _table(runs: int, scale: float) -> None:
    import boto3

    from hotshard.cli.s3_server import SeaweedS3

    with SeaweedS3() as server:
        boto = boto3.client(
            "s3",
            endpoint_url=server.endpoint_url,
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
            region_name=server.region,
        )
        boto.create_bucket(Bucket="engines")
        large = upload(boto, "engines", max(1, round(4 * scale)), 256 * _MIB)
        small = upload(boto, "engines", max(40, round(2000 * scale)), 100 << 10)
        loads = {
            "256 MiB, 8 x 8 MiB": Load("engines", large, 256 * _MIB, 8 * _MIB, 8),
            "100 KiB, 1 in flight": Load(
                "engines", small[: len(small) // 2], 100 << 10, 8 * _MIB, 1
            ),
            "100 KiB, 32 in flight": Load("engines", small, 100 << 10, 8 * _MIB, 32),
        }
        print(f"{'load':<24}{'engine':<18}{'speed':>12}{'ratio':>8}{'CPU s/GB':>10}")
        for title, engine, speed, ratio, cpu in medians(loads, dict(server.environment), runs):
            print(f"{title:<24}{engine:<18}{speed:>12}{ratio:>8}{cpu:>10}")


if __name__ == "__main__":
    main()
