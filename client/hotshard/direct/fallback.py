"""The transports of clients and mounts with the origin behind the server; on a loop: `fallback_async`.

Whatever a server answers, refusals included, is the answer. Only when there is no server (for longer
than `after_s`) is a call answered from the origin; when this process cannot do that either, the error
says both. Calls that a server alone can answer fail as they would without this module.
"""

import logging
import time
from typing import Any, Generic, NamedTuple, TypeVar, cast

from hotshard.calls import Call, Touch
from hotshard.core.errors import HotshardError, ServerUnavailable
from hotshard.direct.answers import Answers
from hotshard.direct.origin import NotHere
from hotshard.direct.outage import Outage
from hotshard.transports import AsyncLine, AsyncTransport, Line, Transport

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Transport | AsyncTransport)
L = TypeVar("L", bound=Line | AsyncLine)
CHECK_PERIOD_S = 0.1
PROBE_TIMEOUT_S = 0.5  # whoever looks for the server waits at most so long for a hung one


class Ticket(NamedTuple):
    """A call under way: at the server, or (no ticket of it) at the origin."""

    call: Call
    servers: object
    absent: ServerUnavailable | None


class State:
    """What both kinds of transport know."""

    def __init__(self, answers: Answers, after_s: float) -> None:
        self._answers = answers
        self.outage = Outage(after_s)
        self.calls = 0
        """Answered from the origin."""

    def answered(self) -> None:
        """The server has answered."""
        if self.outage.answered():
            log.warning("the cache server is back")

    def goes_on_without(self, error: ServerUnavailable) -> bool:
        """There is no server now: whether calls go to the origin."""
        if self.outage.lost(time.monotonic()):
            log.warning("reading from the origin until the cache server is back: %s", error)
        return self.outage.direct

    def lost(self, error: ServerUnavailable) -> None:
        """No server for this call. Returns when the origin is to answer it.

        Raises:
            ServerUnavailable: the server is to be waited for.
        """
        if not self.goes_on_without(error):
            raise error

    def from_origin(self, call: Call, absent: ServerUnavailable) -> Any:
        """The answer of the origin.

        Raises:
            ServerUnavailable: this process cannot ask it.
        """
        try:
            reply = self._answers.answer(call)
        except NotHere as error:
            raise ServerUnavailable(f"{absent}; {error}", uri=error.uri) from error
        self.calls += 1
        return reply


class OperationLine(Generic[T, L]):
    """One operation, whichever way it waits."""

    def __init__(self, server: T, probe: Transport, state: State) -> None:
        self._server = server
        self._probe = probe
        self._state = state
        self._line: L | None = None

    def _begun(self) -> L:
        if self._line is None:
            self._line = cast(L, self._server.line())
        return self._line

    def tell(self, touch: Touch) -> None:
        """Send what has no reply, if there is a server."""
        if not self._state.outage.direct:
            self._begun().tell(touch)

    def end(self) -> None:
        """The operation is over."""
        if self._line is not None:
            self._line.end()


class FallbackTransport:
    """A transport for threads, with the origin behind it."""

    def __init__(
        self, server: Transport, probe: Transport, answers: Answers, after_s: float
    ) -> None:
        """`probe` leads to the same server and gives up after PROBE_TIMEOUT_S."""
        self.passes_files = server.passes_files
        self.state = State(answers, after_s)
        self._server = server
        self._probe = probe

    def check(self) -> None:
        """Wait for a server, or until calls go to the origin."""
        while True:
            try:
                self._server.check()
            except ServerUnavailable as error:
                if self.state.goes_on_without(error):
                    break
                time.sleep(CHECK_PERIOD_S)
            else:
                self.state.answered()
                break

    def line(self) -> "FallbackLine":
        """For one operation."""
        return FallbackLine(self._server, self._probe, self.state)

    def hang_up(self) -> None:
        """Close what is idle."""
        self._server.hang_up()
        self._probe.hang_up()


class FallbackLine(OperationLine[Transport, Line]):
    """One operation."""

    def submit(self, call: Call) -> object:
        """Send a call."""
        try:
            if self._state.outage.direct:
                self._look()
            return Ticket(call, self._begun().submit(call), None)
        except ServerUnavailable as error:
            self._state.lost(error)
            return Ticket(call, None, error)

    def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        absent = ticket.absent
        if absent is None:
            try:
                reply = self._begun().wait(ticket.servers)
            except ServerUnavailable as error:
                self._state.lost(error)
                absent = error
            except HotshardError:
                self._state.answered()
                raise
            else:
                self._state.answered()
                return reply
        return self._state.from_origin(ticket.call, absent)

    def _look(self) -> None:
        """During an outage: look for the server, if it is time to.

        Raises:
            ServerUnavailable: it is still away.
        """
        if not self._state.outage.probe_due(time.monotonic()):
            raise ServerUnavailable("the cache server is away")
        self._probe.check()
        self._probe.hang_up()
        self._state.answered()
