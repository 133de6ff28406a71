"""One block on its way, and who waits for it."""

import asyncio

from cache_server.slots import Ticket


class BlockFlight:
    """One block on its way."""

    __slots__ = ("arrival", "asking", "demand", "forwarded", "ours", "ticket")

    def __init__(self, *, demand: bool, forwarded: bool) -> None:
        self.arrival: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.demand = demand
        self.forwarded = forwarded
        self.ours = False
        """Somebody on this node wants it, too: he may have it from whoever reaches the origin."""
        self.ticket: Ticket | None = None
        """Its place in the queue for the origin, once it stands there."""
        self.asking: asyncio.Timeout | None = None
        """While peers are asked for it."""

    def wanted_by_member(self) -> None:
        """A member waits for it, perhaps the very one that we are asking: stop waiting for members."""
        if not self.forwarded:
            self.forwarded = True
            if self.asking is not None:
                self.asking.reschedule(asyncio.get_running_loop().time())
