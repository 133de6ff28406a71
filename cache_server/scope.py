"""On whose behalf something is done: the request's id, what it waited for, and where its trace goes.

A scope is entered where a request comes in (requests.py) and found again anywhere below, in its task and in
the tasks that are started for it. Work that others join belongs to whoever started it.

    with step("origin", "GET", uri=uri):    counts as waiting for the origin, and is a span of the trace
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

_current: ContextVar["Scope | None"] = ContextVar("scope", default=None)


class Tracer(Protocol):
    """Who keeps spans (tracing.py)."""

    def root(
        self, name: str, request_id: str, *, passed_on: bool
    ) -> AbstractContextManager[object]:
        """The span of a request; `passed_on`: another node has its first one."""

    def child(self, name: str, attributes: dict[str, str]) -> AbstractContextManager[object]:
        """A part of what is going on now."""


@dataclass(slots=True)
class Scope:
    """One request."""

    id: str
    tracer: Tracer | None = None
    waits: dict[str, float] = field(default_factory=dict)
    """What for ("origin", "peer", "slot") -> seconds, of all that was done at one time added up."""

    def waited(self, kind: str, seconds: float) -> None:
        """So long, for this."""
        self.waits[kind] = self.waits.get(kind, 0.0) + seconds


def new_id() -> str:
    """An id for a request: 16 hexadecimal digits, as they fit the head of a bulk request."""
    return uuid.uuid4().hex[:16]


def as_id(number: int) -> str:
    """An id that came as a number."""
    return f"{number:016x}"


def current() -> Scope | None:
    """The request that this is done for, if it is for one."""
    return _current.get()


def current_id() -> str:
    """Its id; empty: none."""
    scope = _current.get()
    return scope.id if scope is not None else ""


@contextmanager
def entered(scope: Scope) -> Iterator[Scope]:
    """Everything inside, in this task and those it starts, is done for this request."""
    token = _current.set(scope)
    try:
        yield scope
    finally:
        _current.reset(token)


class step:  # noqa: N801 - it is used as a function
    """Around a part of a request that may take long: its time is added to the waits of the request."""

    __slots__ = ("_attributes", "_began_s", "_kind", "_name", "_scope", "_span")

    def __init__(self, kind: str, name: str = "", **attributes: str) -> None:
        self._kind = kind
        self._name = name
        self._attributes = attributes
        self._scope = _current.get()
        self._span: AbstractContextManager[object] | None = None
        self._began_s = 0.0

    def __enter__(self) -> None:
        scope = self._scope
        if scope is None:
            return
        self._began_s = time.monotonic()
        if scope.tracer is not None:
            name = f"{self._kind} {self._name}".strip()
            self._span = scope.tracer.child(name, self._attributes)
            self._span.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        scope = self._scope
        if scope is None:
            return
        seconds = time.monotonic() - self._began_s
        scope.waited(self._kind, seconds)
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
