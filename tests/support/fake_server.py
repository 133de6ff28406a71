"""A cache server without a cache: objects in plain files, the real protocols in front.

`FakeStore` holds objects, cut into sealed or partial files; `FakeServer` speaks local.proto over a real
SOCK_SEQPACKET socket with real descriptors, one thread a connection. It passes the same contract suite as
the real server (tests/contract/test_client.py); beyond that it can be told to misbehave.
"""

import itertools
import os
import socket
import threading
from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hotshard.core.errors import HotshardError, InvalidRequest, NotFound, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import parse
from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import PROTOCOL, error_to_pb, info_to_pb

Range = tuple[int, int]


@dataclass
class FakeObject:
    """One version of one object, cut into files of `shard_bytes`."""

    info: ObjectInfo
    data: bytes
    shard_bytes: int
    paths: list[Path]
    padding: int = 0
    """Every file begins and ends with so many bytes that are not the object's."""

    def shard(self, index: int) -> Range:
        start = index * self.shard_bytes
        return start, min(self.info.size, start + self.shard_bytes)


@dataclass
class FakeStore:
    """Objects, and how much of them an open reveals."""

    directory: Path
    objects: dict[str, FakeObject] = field(default_factory=dict)
    reveal: Callable[[Range, Range], Sequence[Range]] | None = None
    """(shard, asked) -> present pieces that cover what was asked; None: whole sealed shards."""
    warm_steps: int = 2
    jobs: dict[str, tuple[list[str], int]] = field(default_factory=dict)
    numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def put(
        self, uri: str, data: bytes, *, shard_bytes: int = 1 << 30, padding: int = 0
    ) -> ObjectInfo:
        """Store an object, or its next version."""
        number = next(self.numbers)
        info = ObjectInfo(uri, f"v{number}", len(data), 1_700_000_000_000_000_000 + number)
        paths = []
        for start in range(0, max(1, len(data)), shard_bytes):
            path = self.directory / f"{number}-{start}"
            pad = b"\xee" * padding
            path.write_bytes(pad + data[start : start + shard_bytes] + pad)
            paths.append(path)
        self.objects[uri] = FakeObject(info, data, shard_bytes, paths, padding)
        return info

    def remove(self, uri: str) -> None:
        """The origin has lost it."""
        del self.objects[uri]

    def get(self, uri: str, version: str = "") -> FakeObject:
        """The object, in that version."""
        address = parse(uri)
        if address.is_prefix:
            raise InvalidRequest(f"{uri} is a prefix", uri=uri)
        found = self.objects.get(address.uri)
        if found is None:
            raise NotFound(f"{uri} does not exist", uri=uri)
        if version and version != found.info.version:
            raise StaleObject(f"{uri} has another version now", uri=uri)
        return found

    def extents(self, found: FakeObject, offset: int, length: int) -> list[tuple[Path, pb.Extent]]:
        """Pieces without gaps that cover the range, with their files."""
        stop = min(found.info.size, offset + length)
        extents = []
        while offset < stop:
            index = offset // found.shard_bytes
            shard = found.shard(index)
            asked = (offset, min(stop, shard[1]))
            for start, end in self.reveal(shard, asked) if self.reveal else [shard]:
                extent = pb.Extent(
                    object_offset=start,
                    length=end - start,
                    file_offset=start - shard[0] + found.padding,
                    sealed=(start, end) == shard,
                )
                extents.append((found.paths[index], extent))
            offset = extents[-1][1].object_offset + extents[-1][1].length
        return extents

    def list_page(
        self, prefix: str, token: str, page_size: int, *, recursive: bool
    ) -> types_pb2.ListReply:
        """One page, in order."""
        names: dict[str, ObjectInfo | None] = {}
        for uri in sorted(self.objects):
            if uri.startswith(prefix) and uri >= token:
                head, slash, _ = uri[len(prefix) :].partition("/")
                fold = slash and not recursive
                names.setdefault(prefix + head + "/", None) if fold else names.update(
                    {uri: self.objects[uri].info}
                )
        page = sorted(names)[: page_size + 1]
        reply = types_pb2.ListReply()
        for name in page[:page_size]:
            info = names[name]
            if info is None:
                reply.common_prefixes.append(name)
            else:
                reply.objects.append(info_to_pb(info))
        if len(page) > page_size:
            reply.next_page_token = page[page_size]
        return reply

    def warm(self, uris: Sequence[str]) -> str:
        """Begin a job."""
        job = f"job-{next(self.numbers)}"
        self.jobs[job] = (list(uris), 0)
        return job

    def progress(self, job: str) -> types_pb2.WarmProgress:
        """A step further at each question."""
        if job not in self.jobs:
            raise NotFound(f"no job {job}")
        uris, step = self.jobs[job]
        self.jobs[job] = (uris, step + 1)
        done = step >= self.warm_steps
        reply = types_pb2.WarmProgress(job_id=job, listing=step == 0, done=done)
        for uri in uris:
            if uri.endswith("/"):
                infos = [o.info for u, o in self.objects.items() if u.startswith(uri)]
            elif uri in self.objects:
                infos = [self.objects[uri].info]
            else:
                infos = []
                reply.planned_objects += 1
                reply.failed_objects += 1
                reply.failures.append(error_to_pb(NotFound(f"{uri} does not exist", uri=uri)))
            reply.planned_objects += len(infos)
            reply.planned_bytes += sum(info.size for info in infos)
            if done:
                reply.resident_objects += len(infos)
                reply.resident_bytes += sum(info.size for info in infos)
        return reply

    def status(self) -> types_pb2.StatusReply:
        """A server in figures."""
        return types_pb2.StatusReply(
            node_id="f" * 32,
            version="0.1.0",
            uptime_s=1.5,
            ready=True,
            origins=["s3://bucket/"],
            disks=[
                types_pb2.DiskStatus(path="/cache", state="ready", capacity_bytes=10, used_bytes=5)
            ],
            datasets=[types_pb2.DatasetStatus(name="s3://bucket/", shards=2, bytes=5)],
            counters={"opens": 3.0},
        )


class FakeServer:
    """The local socket in front of a FakeStore."""

    def __init__(self, store: FakeStore, path: Path) -> None:
        self.store = store
        self.path = path
        self.lease_ms = 60_000
        self.calls: Counter[str] = Counter()
        self.touched: list[str] = []
        self.refusals: deque[HotshardError] = deque()
        """Given out in turn instead of answers (not to hello)."""
        self.tricks: deque[str] = deque()
        """Played in turn instead of answers: "garbage", "hang up", "silence", "no files", "leave"."""
        self.opens_in_flight_max = 0
        self.unwelcome: HotshardError | None = None
        """Told to whoever connects, before hanging up."""
        self.turned_away = threading.Event()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    @property
    def connections(self) -> int:
        return len(self._connections)

    def __enter__(self) -> "FakeServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._spawn(self._accept, self._listener)

    def kill(self) -> None:
        """As the kernel does when the process dies: everything hangs up; the socket's file stays."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._threads.pop(0).join()  # it accepts no more, so all connections are known
            self._listener.close()
            self._listener = None
        with self._lock:
            for connection in self._connections:
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def restart(self) -> None:
        self.kill()
        self.start()

    def _spawn(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            if self.unwelcome is not None:
                refusal = pb.LocalReply(error=error_to_pb(self.unwelcome))
                connection.send(refusal.SerializeToString())
                connection.close()
                self.turned_away.set()
                continue
            with self._lock:
                self._connections.add(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            while packet := connection.recv(1 << 20):
                request = pb.LocalRequest.FromString(packet)
                call = request.WhichOneof("call") or ""
                self.calls[call] += 1
                if call == "touch":
                    self.touched += request.touch.uris
                elif not self._answer(connection, request, call):
                    return
        except OSError:  # the client, or kill(), hung up
            return
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()

    def _answer(self, connection: socket.socket, request: pb.LocalRequest, call: str) -> bool:
        trick = self.tricks.popleft() if call != "hello" and self.tricks else ""
        if trick == "hang up":
            return False
        if trick == "garbage":
            connection.send(b"\xff" * 40)
            return True
        if trick == "silence":
            return True
        if trick == "leave":
            kind = pb.Notice.KIND_GOING_AWAY
            connection.send(pb.LocalReply(notice=pb.Notice(kind=kind)).SerializeToString())
        reply = pb.LocalReply(id=request.id)
        paths: list[Path] = []
        try:
            if call != "hello" and self.refusals:
                raise self.refusals.popleft()
            self._fill(reply, request, call, paths)
        except HotshardError as error:
            reply.error.CopyFrom(error_to_pb(error))
        fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
        try:
            if trick == "no files":
                connection.send(reply.SerializeToString())
            elif fds:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))]
                connection.sendmsg([reply.SerializeToString()], rights)
            else:
                connection.send(reply.SerializeToString())
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fill(
        self, reply: pb.LocalReply, request: pb.LocalRequest, call: str, paths: list[Path]
    ) -> None:
        store = self.store
        match call:
            case "hello":
                reply.hello.protocol = PROTOCOL
                reply.hello.node_id = "f" * 32
            case "open":
                reply.open.CopyFrom(self._open(request.open, paths))
            case "open_many":
                for each in request.open_many.opens:
                    result = reply.open_many.results.add()
                    try:
                        result.open.CopyFrom(self._open(each, paths))
                    except HotshardError as error:
                        result.error.CopyFrom(error_to_pb(error))
            case "stat":
                reply.stat.CopyFrom(info_to_pb(store.get(request.stat.uri).info))
            case "stat_many":
                reply.stat_many.CopyFrom(stat_many(store, request.stat_many.uris))
            case "list":
                ask = request.list
                page = store.list_page(ask.prefix, ask.page_token, 80, recursive=ask.recursive)
                reply.list.CopyFrom(page)
            case "prefetch":
                reply.prefetch.job_id = store.warm(request.prefetch.uris)
            case "warm_status":
                reply.warm_status.CopyFrom(store.progress(request.warm_status.job_id))
            case "status":
                reply.status.CopyFrom(store.status())
            case _:
                raise InvalidRequest(f"no call {call!r}")

    def _open(self, ask: pb.OpenRequest, paths: list[Path]) -> pb.OpenReply:
        found = self.store.get(ask.uri, ask.version)
        reply = pb.OpenReply(object=info_to_pb(found.info), lease_ms=self.lease_ms)
        for path, extent in self.store.extents(found, ask.offset, ask.length):
            extent.fd_index = len(paths)
            paths.append(path)
            reply.extents.append(extent)
        return reply


def stat_many(store: FakeStore, uris: Sequence[str]) -> types_pb2.StatManyReply:
    """Descriptions and refusals."""
    reply = types_pb2.StatManyReply()
    for uri in uris:
        result = reply.results.add()
        try:
            result.object.CopyFrom(info_to_pb(store.get(uri).info))
        except HotshardError as error:
            result.error.CopyFrom(error_to_pb(error))
    return reply
