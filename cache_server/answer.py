"""Around one gRPC call: its id, its metrics, and what becomes of its error.

Every refusal leaves as a gRPC status with the typed hotshard.v1.Error in the trailing metadata; a defect
leaves as INTERNAL and says nothing but its type, while the log has the rest under the request's id.
"""

import logging
import uuid
from types import TracebackType
from typing import Any

import grpc

from cache_server import logs
from cache_server.metrics import Metrics
from hotshard.core.errors import GRPC_STATUS, HotshardError, code_name
from hotshard.wire import error_to_pb

log = logging.getLogger(__name__)

ERROR_KEY = "hotshard-error-bin"

Context = Any
"""grpc.aio.ServicerContext; the generated stubs mix it with the synchronous one."""


class Answer:
    """Around one call: its id, its metrics, and what becomes of its error."""

    __slots__ = ("_context", "_method", "_request", "_timer")

    def __init__(self, metrics: Metrics, method: str, context: Context) -> None:
        self._method = method
        self._context = context
        self._request = logs.request(uuid.uuid4().hex[:16])
        self._timer = metrics.request("grpc", method)

    async def __aenter__(self) -> None:
        self._request.__enter__()
        self._timer.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.__exit__(kind, error, trace)
        try:
            if isinstance(error, HotshardError):
                log.debug("%s refused: %s", self._method, error)
            elif isinstance(error, Exception):
                log.error("%s failed", self._method, exc_info=error)
            if isinstance(error, Exception):
                await _abort(self._context, error)
        finally:
            self._request.__exit__(None, None, None)


async def _abort(context: Context, error: Exception) -> None:
    detail = error_to_pb(error)
    # All of it has to fit the 8 KiB that receivers allow for headers, next to a uri of 4 KiB.
    detail.message = _cut(detail.message, 1024)
    await context.abort(
        grpc.StatusCode[GRPC_STATUS[code_name(error)]],
        _cut(detail.message, 256),
        trailing_metadata=((ERROR_KEY, detail.SerializeToString()),),
    )


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
