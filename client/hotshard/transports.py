"""A way to a server, as operations see it: what `local`, `remote` and `direct` provide. Interfaces only."""

from typing import Any, Protocol

from hotshard.calls import Call, Touch


class Line(Protocol):
    """What one operation talks to the server through."""

    def submit(self, call: Call) -> object:
        """Send a call; returns a ticket."""

    def wait(self, ticket: Any) -> Any:
        """The reply to a ticket."""

    def tell(self, touch: Touch) -> None:
        """Send what has no reply."""

    def end(self) -> None:
        """The operation is over; forget what has not been waited for."""


class Transport(Protocol):
    """A way to the server."""

    passes_files: bool

    def check(self) -> None:
        """Find out at once whether a server is there."""

    def line(self) -> Line:
        """For one operation."""

    def hang_up(self) -> None:
        """Close what is idle."""


class AsyncLine(Protocol):
    """The same on an event loop."""

    async def submit(self, call: Call) -> object:
        """Send a call; returns a ticket."""

    async def wait(self, ticket: Any) -> Any:
        """The reply to a ticket."""

    def tell(self, touch: Touch) -> None:
        """Send what has no reply."""

    def end(self) -> None:
        """The operation is over; forget what has not been waited for."""


class AsyncTransport(Protocol):
    """A way to the server from an event loop."""

    passes_files: bool

    async def check(self) -> None:
        """Find out at once whether a server is there."""

    def line(self) -> AsyncLine:
        """For one operation."""

    async def hang_up(self) -> None:
        """Close what is idle."""
