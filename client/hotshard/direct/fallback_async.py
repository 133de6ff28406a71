"""The transport of a client on an event loop, with the origin behind the server: see `fallback`."""

import asyncio
import time
from typing import Any

from hotshard.calls import Call
from hotshard.core.errors import HotshardError, ServerUnavailable
from hotshard.direct.answers import Answers
from hotshard.direct.fallback import CHECK_PERIOD_S, OperationLine, State, Ticket
from hotshard.transports import AsyncLine, AsyncTransport, Transport


class AsyncFallbackTransport:
    """A transport for an event loop, with the origin behind it."""

    def __init__(
        self, server: AsyncTransport, probe: Transport, answers: Answers, after_s: float
    ) -> None:
        """As FallbackTransport; the probe and the origin are asked in threads."""
        self.passes_files = server.passes_files
        self.state = State(answers, after_s)
        self._server = server
        self._probe = probe

    async def check(self) -> None:
        """Wait for a server, or until calls go to the origin."""
        while True:
            try:
                await self._server.check()
            except ServerUnavailable as error:
                if self.state.goes_on_without(error):
                    break
                await asyncio.sleep(CHECK_PERIOD_S)
            else:
                self.state.answered()
                break

    def line(self) -> "AsyncFallbackLine":
        """For one operation."""
        return AsyncFallbackLine(self._server, self._probe, self.state)

    async def hang_up(self) -> None:
        """Close what is idle."""
        await self._server.hang_up()
        self._probe.hang_up()


class AsyncFallbackLine(OperationLine[AsyncTransport, AsyncLine]):
    """One operation."""

    async def submit(self, call: Call) -> object:
        """Send a call."""
        try:
            if self._state.outage.direct:
                await self._look()
            return Ticket(call, await self._begun().submit(call), None)
        except ServerUnavailable as error:
            self._state.lost(error)
            return Ticket(call, None, error)

    async def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        absent = ticket.absent
        if absent is None:
            try:
                reply = await self._begun().wait(ticket.servers)
            except ServerUnavailable as error:
                self._state.lost(error)
                absent = error
            except HotshardError:
                self._state.answered()
                raise
            else:
                self._state.answered()
                return reply
        return await asyncio.to_thread(self._state.from_origin, ticket.call, absent)

    async def _look(self) -> None:
        """As FallbackLine._look."""
        if not self._state.outage.probe_due(time.monotonic()):
            raise ServerUnavailable("the cache server is away")
        await asyncio.to_thread(self._probe.check)
        self._probe.hang_up()
        self._state.answered()
