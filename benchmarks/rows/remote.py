"""remote.grpc: reads over gRPC by the client library, beside a bare stream of the same messages.

The bare side is a grpc.aio server that sends one buffer again and again in messages of 1 MiB, and a client
that copies them into its own: what gRPC itself costs. Ours looks the object up, reads the cached file, and
goes through the client's checks.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import hotshard
from benchmarks.bench import Bench, Row, Sides
from benchmarks.cost import Cost
from benchmarks.data import DataSet
from benchmarks.results import BenchError, Measured
from benchmarks.rows.scene import hot_files

_MIB = 1 << 20
_CALL_BYTES = 8 * _MIB
# A request is the number of messages wanted; nothing is encoded on either side.
_BARE = """
import asyncio, sys
import grpc.aio
body = bytes(1 << 20)
async def stream(request, context):
    for _ in range(request[0]):
        yield body
async def main():
    server = grpc.aio.server()
    method = grpc.unary_stream_rpc_method_handler(stream)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare", {"stream": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()
try:
    import uvloop
    uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""

Call = Callable[[memoryview, int], int]
"""(buffer, offset) -> bytes."""


@contextmanager
def _open(bench: Bench) -> Iterator[Sides]:
    data = DataSet(bench.seed, 1, bench.pick(full=256, quick=64, tiny=8) * _MIB)
    passes = bench.pick(full=4, quick=2, tiny=1)
    with (
        hot_files(bench.directory, data) as hot,
        closing(hotshard.connect(hot.node.grpc)) as client,
        _bare() as (pid, bare),
    ):
        uri = hot.place.uri(0)
        read_into = bench.sabotage.wrap_into(client.read_into)

        def ours(view: memoryview, offset: int) -> int:
            return read_into(uri, view, offset)

        def side(call: Call, server: int) -> Measured:
            view = memoryview(bytearray(_CALL_BYTES))
            offsets = list(range(0, data.object_bytes, _CALL_BYTES)) * passes
            with Cost({"server": server}) as cost:
                for offset in offsets:
                    if call(view, offset) != _CALL_BYTES:
                        raise BenchError("a read came up short")
            total = len(offsets) * _CALL_BYTES
            return Measured(
                total / cost.seconds / 1e9, cost.seconds, total, len(offsets), cost.cpu_s
            )

        def checked() -> Measured:
            measured = side(ours, hot.node.pid)
            view = memoryview(bytearray(_CALL_BYTES))
            for offset in range(0, data.object_bytes, _CALL_BYTES):
                data.check(0, offset, _CALL_BYTES, view[: ours(view, offset)])
            return measured

        yield Sides(ours=checked, limits={"a bare stream of grpc.aio": lambda: side(bare, pid)})


@contextmanager
def _bare() -> Iterator[tuple[int, Call]]:
    """The bare server: its pid, and a call on it."""
    import grpc

    with subprocess.Popen(
        [sys.executable, "-c", _BARE], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stream: Any = channel.unary_stream("/bare/stream")

                def call(view: memoryview, _: int) -> int:
                    done = 0
                    for message in stream(bytes([len(view) // _MIB])):
                        view[done : done + len(message)] = message
                        done += len(message)
                    return done

                yield process.pid, call
        finally:
            process.kill()


ROWS = (
    Row(
        "remote.grpc",
        "a hot object over gRPC, 8 MiB a call in messages of 1 MiB",
        "GB/s",
        0.8,
        _open,
        below="protobuf and gRPC copy each message, and each pread hops to a thread; clients on the"
        " node itself never come this way (PERFORMANCE.md, gRPC reads)",
        rounds=5,
        budget_s=20.0,
    ),
)
