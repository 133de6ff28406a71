"""Fetch slots: how many origin requests run at once, and who goes first.

There are `total` slots. Prefetch may hold at most its share of them, so that a demand read finds a free
slot soon even in the middle of a warm-up; a waiting demand read always goes before a waiting prefetch.
A wait can be promoted from prefetch to demand, when a reader turns up for a block that was only queued.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


class Ticket:
    """One wait for a slot, and then the slot itself; give it back with `FetchSlots.release`."""

    __slots__ = ("demand", "granted", "then")

    def __init__(self, then: Callable[[], None] | None, *, demand: bool) -> None:
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.then = then
        self.demand = demand

    def grant(self) -> None:
        """The slot is there."""
        # A cancelled waiter whose CancelledError has not run yet releases the slot in acquire().
        if not self.granted.done():
            self.granted.set_result(None)
        then, self.then = self.then, None  # who asked holds this ticket: no cycle for the collector
        if then is not None:
            then()


@dataclass(frozen=True, slots=True)
class SlotCounts:
    """How the slots stand."""

    total: int
    demand_running: int
    prefetch_running: int
    demand_waiting: int
    prefetch_waiting: int


class FetchSlots:
    """A semaphore with two classes of waiters."""

    def __init__(self, total: int, prefetch_total: int) -> None:
        if not 1 <= prefetch_total <= total:
            raise ValueError(f"prefetch_total must be between 1 and {total}, not {prefetch_total}")
        self._total = total
        self._prefetch_total = prefetch_total
        self._running = {True: 0, False: 0}
        # Insertion order is arrival order; a ticket leaves from anywhere when its caller gives up.
        self._waiting: dict[bool, OrderedDict[Ticket, None]] = {
            True: OrderedDict(),
            False: OrderedDict(),
        }

    def ask(self, *, demand: bool, then: Callable[[], None] | None = None) -> Ticket:
        """Queue for a slot: `then` is called when it is there, perhaps at once. Or await `acquire`."""
        ticket = Ticket(then, demand=demand)
        self._waiting[demand][ticket] = None
        self._grant()
        return ticket

    async def acquire(self, ticket: Ticket) -> None:
        """Wait for the slot. A cancelled wait gives the place, or the slot, back."""
        if ticket.granted.done():
            return
        try:
            await ticket.granted
        except asyncio.CancelledError:
            if ticket in self._waiting[ticket.demand]:
                del self._waiting[ticket.demand][ticket]
            else:
                self.release(ticket)
            raise

    def promote(self, ticket: Ticket) -> None:
        """A reader now waits for what this ticket fetches: treat it as demand from here on."""
        if ticket.demand:
            return
        if ticket in self._waiting[False]:
            del self._waiting[False][ticket]
            ticket.demand = True
            self._waiting[True][ticket] = None
            self._grant()

    def release(self, ticket: Ticket) -> None:
        """Give a granted slot back."""
        self._running[ticket.demand] -= 1
        self._grant()

    def busy(self) -> bool:
        """Whether a reader waits for the origin."""
        return bool(self._running[True] or self._waiting[True])

    def counts(self) -> SlotCounts:
        """The present state, for metrics."""
        return SlotCounts(
            total=self._total,
            demand_running=self._running[True],
            prefetch_running=self._running[False],
            demand_waiting=len(self._waiting[True]),
            prefetch_waiting=len(self._waiting[False]),
        )

    def _grant(self) -> None:
        while self._running[True] + self._running[False] < self._total:
            if self._waiting[True]:
                demand = True
            elif self._waiting[False] and self._running[False] < self._prefetch_total:
                demand = False
            else:
                return
            ticket, _ = self._waiting[demand].popitem(last=False)
            self._running[demand] += 1
            ticket.grant()
