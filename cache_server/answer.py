"""Around one gRPC call: its id, its metrics, and what becomes of its error.

Every refusal leaves as a gRPC status with the typed hotshard.v1.Error in the trailing metadata; a defect
leaves as INTERNAL and says nothing but its type, while the log has the rest under the request's id.
"""

import logging
import re
from types import TracebackType
from typing import Any

import grpc

from cache_server.requests import Requests
from hotshard.core.errors import GRPC_STATUS, HotshardError, code_name
from hotshard.wire import FORWARDED_KEY, REQUEST_KEY, error_to_pb

log = logging.getLogger(__name__)

ERROR_KEY = "hotshard-error-bin"
_ID = re.compile("[0-9a-f]{16}")

Context = Any
"""grpc.aio.ServicerContext; the generated stubs mix it with the synchronous one."""


class Answer:
    """Around one call: its id, its metrics, and what becomes of its error."""

    __slots__ = ("_context", "_method", "_request")

    def __init__(self, requests: Requests, method: str, context: Context, uri: str = "") -> None:
        self._method = method
        self._context = context
        metadata = dict(context.invocation_metadata() or ())
        given = str(metadata.get(REQUEST_KEY, ""))
        self._request = requests.begin(
            "grpc",
            method,
            given if _ID.fullmatch(given) and int(given, 16) else "",
            uri=uri,
            passed_on=FORWARDED_KEY in metadata,
        )

    async def __aenter__(self) -> None:
        self._request.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._request.answered(error)
        try:
            if isinstance(error, HotshardError):
                log.debug("%s refused: %s", self._method, error)
            elif isinstance(error, Exception):
                log.error("%s failed", self._method, exc_info=error)
            if isinstance(error, Exception):
                await _abort(self._context, error, self._request.scope.id)
        finally:
            self._request.__exit__(kind, error, trace)


async def _abort(context: Context, error: Exception, request_id: str) -> None:
    detail = error_to_pb(error)
    detail.request = request_id
    # All of it has to fit the 8 KiB that receivers allow for headers, next to a uri of 4 KiB.
    detail.message = _cut(detail.message, 1024)
    await context.abort(
        grpc.StatusCode[GRPC_STATUS[code_name(error)]],
        _cut(detail.message, 256),
        trailing_metadata=((ERROR_KEY, detail.SerializeToString()),),
    )


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")
