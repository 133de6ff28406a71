"""peer.*: blocks of 8 MiB from another server into a file, beside a bare pair of sendfile and splice.

Ours is a whole server on one side and the client of members on the other: request, look-up, checksum on
arrival; beside it the same over gRPC Read. The pair does none of it: a process calls sendfile, one splices
from the socket into a file.
"""

import asyncio
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import uvloop

from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.node import Node
from benchmarks.results import BenchError, Measured
from benchmarks.rows.scene import hot_files
from benchmarks.sabotage import Sabotage
from cache_server.cluster.bulk_client import BulkClient, BulkOptions, Landing
from cache_server.cluster.grpc_peer import GrpcOptions, GrpcPeer
from cache_server.cluster.peers import CONNECTIONS
from cache_server.core.patience import Patience
from cache_server.origins.origin import Fetched, Target, Want
from cache_server.origins.threads import Threads
from hotshard.core import bulkwire as wire
from hotshard.core.objects import ObjectInfo

_BLOCK = 8 << 20
_GRPC_SHARE = 8
"""It is slow: it moves one part in so many."""
Ask = Callable[[Want, Landing], Awaitable[Fetched]]
_SENDER = """
import os, socket, sys
fd, total, piece = os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]), int(sys.argv[3])
size = os.fstat(fd).st_size
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    sock, _ = listener.accept()
    sent = 0
    while sent < total:
        sent += os.sendfile(sock.fileno(), fd, sent % size, min(piece, total - sent, size - sent % size))
    sock.close()
"""


@dataclass(frozen=True, slots=True)
class _Scene:
    """A hot object in a server, and a file for what is received."""

    data: DataSet
    info: ObjectInfo
    node: Node
    out: str
    total: int
    sabotage: Sabotage

    def check(self) -> None:
        """Look at every byte that arrived."""
        fd = os.open(self.out, os.O_RDONLY)
        view = memoryview(bytearray(_BLOCK))
        read = self.sabotage.wrap_into(lambda buffer, offset: os.preadv(fd, [buffer], offset))
        try:
            for offset in range(0, self.data.object_bytes, _BLOCK):
                count = read(view, offset)
                self.data.check(0, offset, _BLOCK, view[:count])
        finally:
            os.close(fd)
            os.truncate(self.out, 0)


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=16) << 20)
    total = bench.pick(full=4 << 30, quick=1 << 30, tiny=32 << 20)
    out = os.path.join(bench.directory, "received")
    with hot_files(bench.directory, data) as hot:
        info = hot.client.stat(hot.place.uri(0))
        scene = _Scene(data, info, hot.node, out, total, bench.sabotage)
        with _sender(hot.cached_path(0), total) as (pid, sender_port):
            node = hot.node
            part = max(total // _GRPC_SHARE, data.object_bytes)
            beside = replace(scene, total=part, sabotage=Sabotage.NONE)
            yield Sides(
                ours=lambda: _received(scene, _bulk(node.bulk)),
                limits={"sendfile and splice": lambda: _splice(scene, pid, sender_port)},
                peers={"gRPC Read": lambda: _received(beside, _grpc(node.grpc))},
            )


@asynccontextmanager
async def _bulk(address: str) -> AsyncIterator[Ask]:
    """Through the bulk port, as members do."""
    pool = Threads(CONNECTIONS, "peer")  # belongs to this run's event loop
    bulk = BulkClient(address, BulkOptions(), pool)
    try:
        yield lambda want, landing: bulk.read(want, landing, wire.Flag.FORWARDED, 0)
    finally:
        bulk.close()
        pool.close()


@asynccontextmanager
async def _grpc(address: str) -> AsyncIterator[Ask]:
    """Through gRPC Read, as members do where the bulk port cannot be reached."""
    peer = GrpcPeer(address, GrpcOptions(), Patience())
    try:
        yield lambda want, landing: peer.read(want, landing, 0)
    finally:
        await peer.close()


def _received(scene: _Scene, way: AbstractAsyncContextManager[Ask]) -> Measured:
    fd = os.open(scene.out, os.O_RDWR | os.O_CREAT)
    offsets = iter(range(0, scene.total, _BLOCK))

    async def reader(ask: Ask) -> None:
        for at in offsets:
            offset = at % scene.data.object_bytes
            await ask(Want(scene.info, offset, _BLOCK), Landing(Target(fd, offset)))

    async def readers() -> None:
        async with way as ask, asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(reader(ask))

    try:
        with Cost({"server": scene.node.pid}) as cost:
            scene.sabotage.wrap(uvloop.run)(readers())  # the loop of a server
        scene.check()
    finally:
        os.close(fd)
    return _measured(scene.total, cost)


def _measured(size: int, cost: Cost) -> Measured:
    return Measured(size / cost.seconds / 1e9, cost.seconds, size, size // _BLOCK, cost.cpu_s)


def _splice(scene: _Scene, sender: int, port: int) -> Measured:
    fd = os.open(scene.out, os.O_RDWR | os.O_CREAT)
    take, put = os.pipe()
    fcntl.fcntl(put, fcntl.F_SETPIPE_SZ, 1 << 20)
    received = 0
    try:
        with (
            Cost({"server": sender}) as cost,
            socket.create_connection(("127.0.0.1", port)) as sock,
        ):
            while received < scene.total:
                count = os.splice(sock.fileno(), put, 1 << 20)
                if not count:
                    raise BenchError("the sender ended early")
                while count:
                    at = received % scene.data.object_bytes
                    room = min(count, scene.data.object_bytes - at)
                    moved = os.splice(take, fd, room, offset_dst=at)
                    received += moved
                    count -= moved
        replace(scene, sabotage=Sabotage.NONE).check()
    finally:
        for each in (fd, take, put):
            os.close(each)
    return _measured(received, cost)


@contextmanager
def _sender(path: str, total: int) -> Iterator[tuple[int, int]]:
    """A process that sends the file over and over to each who connects: its pid and port."""
    command = [sys.executable, "-c", _SENDER, path, str(total), str(_BLOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


ROWS = (
    Row(
        "peer.block",
        "blocks of 8 MiB from another server to a file",
        "GB/s",
        0.8,
        _open,
        below="speed is CPU time where both sides share two cores: the pair checks nothing, ours copies and"
        " sums every byte (0.1 s/GB) and spends 0.1 s/GB in Python (BULK.md)",
        budget_s=16.0,
    ),
)
