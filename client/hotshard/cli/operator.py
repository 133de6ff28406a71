"""The calls that operators make and training code does not: pin, evict, explain, members. gRPC only."""

from typing import TypeVar, cast

import grpc

from hotshard.core.errors import HotshardError, PermissionDenied, ServerUnavailable
from hotshard.v1 import cache_pb2, cache_pb2_grpc, types_pb2
from hotshard.wire import error_from_pb

TIMEOUT_S = 60.0  # an evict of a large prefix unlinks many files
ERROR_KEY = "hotshard-error-bin"

Request = TypeVar("Request")
Reply = TypeVar("Reply")


class Operator:
    """A connection to one server; close it, or use it as a context manager."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._channel = grpc.insecure_channel(address)
        self._stub = cache_pb2_grpc.CacheStub(self._channel)

    def __enter__(self) -> "Operator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._channel.close()

    def pin(self, uri: str) -> list[str]:
        """Keep an object or prefix cached; all pins that now hold."""
        return list(self._call(self._stub.Pin, cache_pb2.PinRequest(uri=uri)).pins)

    def unpin(self, uri: str) -> list[str]:
        """Take a pin back; all pins that now hold."""
        return list(self._call(self._stub.Unpin, cache_pb2.PinRequest(uri=uri)).pins)

    def evict(self, uri: str, *, include_pinned: bool) -> tuple[int, int]:
        """Drop an object or prefix from the cache; shards and bytes that went."""
        request = cache_pb2.EvictRequest(uri=uri, include_pinned=include_pinned)
        reply = self._call(self._stub.Evict, request)
        return reply.shards, reply.bytes

    def explain(self, uri: str) -> cache_pb2.ExplainReply:
        """What the server knows of one object."""
        return self._call(self._stub.Explain, cache_pb2.ExplainRequest(uri=uri))

    def members(self) -> cache_pb2.MembersReply:
        """Who is in the server's cluster, with the table of owners."""
        return self._call(self._stub.Members, cache_pb2.MembersRequest(with_table=True))

    def status(self) -> types_pb2.StatusReply:
        """How the server is, without its counters."""
        return self._call(self._stub.Status, types_pb2.StatusRequest(brief=True))

    def _call(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Reply]", request: Request
    ) -> Reply:
        try:
            return method(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._typed(error) from error

    def _typed(self, error: grpc.RpcError) -> HotshardError:
        # What a stub raises is a grpc.Call too, but the types do not say so.
        call = cast("grpc.Call", error)
        for key, value in call.trailing_metadata() or ():
            if key == ERROR_KEY and isinstance(value, bytes):
                return error_from_pb(types_pb2.Error.FromString(value))
        if call.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return PermissionDenied(f"{self._address}: {call.details()}")
        return ServerUnavailable(f"no answer from {self._address} ({call.details()})")
