"""hotshard.v1.Cache over a FakeStore, in this process; see fake_server.py."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from hotshard.core.errors import GRPC_STATUS, HotshardError, code_name
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2
from hotshard.wire import error_to_pb, info_to_pb
from support.fake_server import FakeStore, stat_many

MESSAGE_BYTES = 1 << 20


class FakeGrpcServer(cache_pb2_grpc.CacheServicer):
    """The gRPC service in front of a FakeStore, on a port of its own."""

    def __init__(self, store: FakeStore, credentials: grpc.ServerCredentials | None = None) -> None:
        self.store = store
        self.refusals: deque[HotshardError] = deque()
        """Given out in turn instead of answers."""
        self.short_by = 0
        """So many bytes are left out at the end of a Read."""
        self._credentials = credentials
        self._server: grpc.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def __enter__(self) -> "FakeGrpcServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        cache_pb2_grpc.add_CacheServicer_to_server(self, self._server)
        place = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, self._credentials)
        self._server.start()

    def kill(self) -> None:
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextmanager
    def _refusing(self, context: Any) -> Iterator[None]:
        try:
            if self.refusals:
                raise self.refusals.popleft()
            yield
        except HotshardError as error:
            context.set_trailing_metadata(
                (("hotshard-error-bin", error_to_pb(error).SerializeToString()),)
            )
            context.abort(grpc.StatusCode[GRPC_STATUS[code_name(error)]], str(error))

    def Stat(self, request: Any, context: Any) -> Any:
        with self._refusing(context):
            return info_to_pb(self.store.get(request.uri).info)

    def StatMany(self, request: Any, context: Any) -> Any:
        with self._refusing(context):
            return stat_many(self.store, request.uris)

    def List(self, request: Any, context: Any) -> Iterator[types_pb2.ListReply]:
        with self._refusing(context):
            token = request.page_token
            while True:
                page = self.store.list_page(request.prefix, token, 80, recursive=request.recursive)
                yield page
                token = page.next_page_token
                if not token:
                    return

    def Read(self, request: Any, context: Any) -> Iterator[pb.ReadReply]:
        with self._refusing(context):
            found = self.store.get(request.uri, request.version)
            stop = found.info.size
            if request.length:
                stop = min(stop, request.offset + request.length)
            stop -= self.short_by
            reply = pb.ReadReply(object=info_to_pb(found.info))
            for start in range(request.offset, stop, MESSAGE_BYTES):
                reply.data = found.data[start : min(stop, start + MESSAGE_BYTES)]
                yield reply
                reply = pb.ReadReply()
            if reply.HasField("object"):
                yield reply

    def Prefetch(self, request: Any, context: Any) -> Iterator[types_pb2.WarmProgress]:
        with self._refusing(context):
            job = self.store.warm(request.uris)
            while True:
                progress = self.store.progress(job)
                yield progress
                if progress.done:
                    return

    def WarmStatus(self, request: Any, context: Any) -> Any:
        with self._refusing(context):
            return self.store.progress(request.job_id)

    def Status(self, request: Any, context: Any) -> Any:
        with self._refusing(context):
            return self.store.status()

    def _not_here(self, request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "the fake has no such call")

    Evict = Explain = Invalidate = Pin = Unpin = _not_here
    Locate = Meet = Members = Offer = WatchMembers = _not_here
