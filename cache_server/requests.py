"""Around each request that comes in: its id, its metrics, its trace, a line in the log if it took long.

What is answered from memory does not come by here (local_connection.py): it takes microseconds.
"""

import logging
import time
from contextlib import ExitStack
from types import TracebackType

from cache_server import scope
from cache_server.metrics import Metrics, RequestTimer

log = logging.getLogger(__name__)

PATIENT = {"warm_status", "WarmStatus", "Prefetch", "WatchMembers", "List"}
"""Requests that wait because they are asked to, or that stream for as long as their reader likes."""
LINES_PER_S = 100
"""When everything is slow, some lines say as much as all of them."""


class Requests:
    """Begins requests. Use from the event loop only."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        slow_s: float = float("inf"),
        tracer: scope.Tracer | None = None,
    ) -> None:
        """Make it.

        Args:
            metrics: who counts.
            slow_s: from how many seconds on a request is worth a line in the log.
            tracer: where spans go; None: nowhere.
        """
        self.metrics = metrics
        self._slow_s = slow_s
        self._tracer = tracer
        self._second = 0
        self._lines = 0

    def begin(
        self,
        path: str,
        method: str,
        request_id: str = "",
        *,
        uri: str = "",
        passed_on: bool = False,
    ) -> "Request":
        """A context around one request.

        Args:
            path: where it came in: "local", "grpc", "bulk".
            method: what it asks.
            request_id: its id, if it came with one.
            uri: which object it is about, for the log.
            passed_on: another node has it from its reader.
        """
        found = scope.Scope(request_id or scope.new_id(), self._tracer)
        timer = self.metrics.request(path, method) if path != "bulk" else None
        return Request(self, (path, method, uri), found, timer, passed_on=passed_on)

    def ended(
        self, what: tuple[str, str, str], found: scope.Scope, code: str, seconds: float
    ) -> None:
        """A request was answered; its scope is still entered."""
        path, method, uri = what
        if seconds < self._slow_s or method in PATIENT:
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_S:
            return
        waits = {f"{kind}_s": round(spent, 3) for kind, spent in sorted(found.waits.items())}
        about = {"uri": uri} if uri else {}
        extra = {
            "path": path,
            "method": method,
            **about,
            "code": code,
            "seconds": round(seconds, 3),
        }
        log.warning("slow request", extra={**extra, **waits})


class Request:
    """One request: a context around all that is done for it."""

    __slots__ = (
        *("_began_s", "_code", "_ended", "_owner", "_passed_on", "_stack", "_timer", "_what"),
        "scope",
    )

    def __init__(
        self,
        owner: Requests,
        what: tuple[str, str, str],
        found: scope.Scope,
        timer: RequestTimer | None,
        *,
        passed_on: bool,
    ) -> None:
        self._owner = owner
        self._what = what
        self._timer = timer
        self._passed_on = passed_on
        self._stack = ExitStack()
        self._began_s = 0.0
        self._code = "ok"
        self._ended = False
        self.scope = found

    def failed(self, error: BaseException) -> None:
        """It was answered with this error."""
        self._code = type(error).__name__
        if self._timer is not None:
            self._timer.failed(error)

    def refused(self, code: str) -> None:
        """It was answered, with this in place of what it asked for; nothing for the metrics of errors."""
        self._code = code

    def answered(self, error: BaseException | None) -> None:
        """The answer is known, and only has to be sent: count it now. Idempotent."""
        if self._ended:
            return
        self._ended = True
        if error is not None:
            self._code = type(error).__name__
        if self._timer is not None:
            self._timer.__exit__(None if error is None else type(error), error, None)
        self._owner.ended(self._what, self.scope, self._code, time.monotonic() - self._began_s)

    def __enter__(self) -> "Request":
        self._began_s = time.monotonic()
        self._stack.enter_context(scope.entered(self.scope))
        if self.scope.tracer is not None:
            name = " ".join(self._what[:2])
            self._stack.enter_context(
                self.scope.tracer.root(name, self.scope.id, passed_on=self._passed_on)
            )
        if self._timer is not None:
            self._timer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.answered(error)
        self._stack.__exit__(kind, error, trace)
