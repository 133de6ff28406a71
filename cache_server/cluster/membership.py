"""This node as a member: follows the provider, meets whom it lists, and keeps the view.

    provider --addresses--> meet each now and then --members--> roster --weights--> placement --> view
    somebody meets us: what he says is not believed but checked: we meet him, too

Several changes within SETTLE_S make one view. The table is made in a thread; whoever reads (`owners`) sees
the members as they are now and the last table that is complete.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from cache_server.cluster.meeting import Meeter, Silent, Stranger
from cache_server.cluster.ports import PeerAddress
from cache_server.cluster.providers.provider import Provider
from cache_server.metrics.members import MemberMetrics
from hotshard.core.members import Candidate, Member, Refusal, Refused, State, Terms
from hotshard.core.placement import Placement
from hotshard.core.roster import Roster, changed_weights
from hotshard.core.view import View

log = logging.getLogger(__name__)

SETTLE_S = 0.1
MEET_S = 5.0
"""Between two meetings with a member, in a cluster of up to 100; beyond, twenty a second are met."""
MEET_EACH_S = 0.05
DRAINING_S = 1.0
"""Between two meetings with a member that leaves: it is gone soon, and should be known to be."""
SILENT_S = 0.5
SILENT_S_MAX = 10.0
"""Between two tries to meet who does not answer; doubles from the one to the other."""
CALL_S = 0.1
"""Between two meetings with one address, whoever asks for them."""
MEETINGS_MAX = 32
"""At one time."""
ANNOUNCE_S = 2.0
COMPLAINTS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Tools:
    """What membership works with; tests bring their own."""

    provider: Provider
    meeter: Meeter
    events: MemberMetrics
    random_unit: Callable[[], float]
    clock: Callable[[], float] = time.monotonic


class Membership:
    """Use from the event loop only. `cache_server.cluster.ports.Placement` for the rest of the package."""

    def __init__(self, roster: Roster, tools: Tools) -> None:
        self._roster = roster
        self._tools = tools
        self._placement = Placement(slots=roster.terms.slots, replicas=roster.terms.replicas)
        self._meetings = asyncio.Semaphore(MEETINGS_MAX)
        self._calls: dict[str, asyncio.Event] = {}  # by address: set to meet now
        self._changed = asyncio.Event()
        self._met_all = asyncio.Event()
        self._tried: set[str] = set()
        self._complaints: dict[str, str] = {}
        self._next_view = asyncio.Event()  # a new one for each view
        self.view = View(
            roster.terms.cluster, roster.me.id, roster.members(), self._placement.table()
        )
        self.slots_owned = 0
        self._addresses = _addresses(self.view)

    # -- what others ask ---------------------------------------------------------------------------

    @property
    def me(self) -> str:
        """The id of this node."""
        return self._roster.me.id

    @property
    def terms(self) -> Terms:
        """Of our cluster."""
        return self._roster.terms

    @property
    def view_version(self) -> int:
        """Of the view that answers."""
        return self.view.version

    def owners(self, digest: bytes) -> Sequence[PeerAddress]:
        """See ports.Placement."""
        addresses = self._addresses
        return [addresses[member.id] for member in self.view.owners(digest)]

    def previous_owners(self, digest: bytes) -> Sequence[PeerAddress]:
        """See ports.Placement."""
        addresses = self._addresses
        return [addresses[member.id] for member in self.view.previous_owners(digest)]

    def suspect(self, id_: str) -> None:
        """See ports.Placement."""
        address = self._addresses.get(id_)
        if address is not None:
            self._call(address.grpc)

    async def views(self) -> AsyncIterator[View]:
        """The view now, and each new one until this node drains; a slow reader skips some."""
        while True:
            upcoming, view = self._next_view, self.view
            yield view
            me = view.member(self.me)
            if me is not None and me.state is State.DRAINING:
                return
            await upcoming.wait()

    def heard(self, member: Member, terms: Terms) -> Member:
        """Somebody met us; if that is news he is met in turn. Returns how we present ourselves."""
        difference = self._roster.terms.differs(terms)
        if difference:
            problem = f"{member.grpc[:300]} is not of this cluster: {difference}"
            self._refuse(member.grpc, Refused(Refusal.OTHER_TERMS, problem))
        elif member.id != self.me and self._roster.says(member.id) != (
            member.instance,
            member.state,
        ):
            known = self.view.member(member.id)
            self._call(member.grpc)
            if known is not None:
                self._call(known.grpc)
            elif member.grpc not in self._calls:
                # He knows himself by another name than the provider: he is one who is not met yet.
                met = {each.grpc for each in self._roster.members()}
                for address in self._calls.keys() - met:
                    self._call(address)
        return self._roster.me

    # -- what the node does ------------------------------------------------------------------------

    async def run(self) -> None:
        """Be a member; never ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(group))
            group.create_task(self._keep_view())

    async def settle(self, limit_s: float) -> None:
        """Wait until everybody who is listed was tried once, and the view shows it."""
        try:
            async with asyncio.timeout(limit_s):
                await self._met_all.wait()
                self._changed.set()
                while set(self.view.table.ids) != self._roster.weights().keys():
                    await self._next_view.wait()
        except TimeoutError:
            log.warning("not everybody who is listed was tried in %g s", limit_s)

    def located(self, grpc: str, bulk: str) -> None:
        """This node's ports are open."""
        self._roster.located(grpc, bulk, self._tools.clock())
        self._changed.set()

    async def become(self, state: State) -> None:
        """Come to another state, and let everybody know: they meet us when we meet them."""
        self._roster.become(state, self._tools.clock())
        self._changed.set()
        try:
            async with asyncio.timeout(ANNOUNCE_S), asyncio.TaskGroup() as group:
                for candidate in self._roster.addresses:
                    group.create_task(self._meet(candidate.address))
        except TimeoutError:
            log.info("not everybody heard in time that we are %s", state)

    # -- the provider ------------------------------------------------------------------------------

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        keepers: dict[str, asyncio.Task[None]] = {}
        async for candidates in self._tools.provider.lists():
            self._take_list(candidates)
            listed = {candidate.address for candidate in self._roster.addresses}
            for address in keepers.keys() - listed:
                keepers.pop(address).cancel()
                del self._calls[address]
            for address in listed - keepers.keys():
                self._calls[address] = asyncio.Event()
                keepers[address] = group.create_task(self._keep_meeting(address))
            self._tried &= listed
            if not listed:
                self._met_all.set()

    def _take_list(self, candidates: Sequence[Candidate]) -> None:
        for refused in self._roster.listed(candidates, self._tools.clock()):
            self._refuse("the provider's list", refused)
        self._changed.set()

    # -- meetings ----------------------------------------------------------------------------------

    async def _keep_meeting(self, address: str) -> None:
        """Meet who is at an address, again and again."""
        silences = 0
        while True:
            met = await self._meet(address)
            self._tried.add(address)
            others = {candidate.address for candidate in self._roster.addresses}
            if self._tried >= others:
                self._met_all.set()
            if address not in others:
                return  # it is our own
            if met is None:
                wait_s = min(SILENT_S_MAX, SILENT_S * 2.0 ** min(silences, 10))
                silences += 1
            else:
                usual_s = DRAINING_S if met.state is State.DRAINING else MEET_S
                wait_s = max(usual_s, MEET_EACH_S * len(self._calls))
                silences = 0
            await self._called(address, wait_s * (0.75 + self._tools.random_unit() / 2))

    async def _called(self, address: str, wait_s: float) -> None:
        """Wait so long, or until it is time to meet before."""
        call = self._calls[address]
        await asyncio.sleep(CALL_S)
        try:
            async with asyncio.timeout(wait_s):
                await call.wait()
        except TimeoutError:
            pass
        call.clear()

    def _call(self, address: str) -> None:
        if address in self._calls:
            self._calls[address].set()

    async def _meet(self, address: str) -> Member | None:
        """One meeting; who it was, if it answered and is a member."""
        tools, roster = self._tools, self._roster
        met: Member | None = None
        try:
            async with self._meetings:
                member, terms = await tools.meeter.meet(address, roster.me, roster.terms)
            before = self._roster.members()
            met = roster.met(address, member, terms, tools.clock())
        except Silent as silent:
            log.debug("nobody answers: %s", silent)
            outcome = "silent"
            roster.silent(address, tools.clock())
        except Stranger as stranger:
            self._complain(address, f"no member: {stranger}")
            outcome = "stranger"
            roster.silent(address, tools.clock())
        except Refused as refused:
            self._refuse(address, refused)
            outcome = "refused"
        else:
            outcome = "ok"
            self._complaints.pop(address, None)
            if before == self._roster.members():
                tools.events.meeting(outcome)
                return met
        tools.events.meeting(outcome)
        self._changed.set()
        return met

    def _refuse(self, where: str, refused: Refused) -> None:
        self._tools.events.refused(refused.refusal)
        self._complain(where, f"not taken in: {refused}")

    def _complain(self, where: str, what: str) -> None:
        """Once, and again when it changes."""
        if self._complaints.get(where) != what:
            log.warning("%s", what)
        while len(self._complaints) >= COMPLAINTS_MAX:
            self._complaints.pop(next(iter(self._complaints)))
        self._complaints[where] = what

    # -- the view ----------------------------------------------------------------------------------

    async def _keep_view(self) -> None:
        while True:
            await self._change_or_expiry()
            self._changed.clear()
            now = self._tools.clock()
            self._roster.expire(now)
            members, weights = self._roster.members(), self._roster.weights()
            joined, left = changed_weights(self._placement.weights, weights)
            self._publish(self.view.succeeded(members, self.view.table, now))
            if joined or left:  # takes a while; meanwhile nobody is asked who is away
                await asyncio.to_thread(self._placement.change, joined, left)
                table = await asyncio.to_thread(self._placement.table)
                self._publish(self.view.succeeded(members, table, now))

    async def _change_or_expiry(self) -> None:
        due = self._roster.expires_at()
        wait_s = None if due is None else max(0.0, due - self._tools.clock())
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
                await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            pass

    def _publish(self, view: View) -> None:
        before, self.view = self.view, view
        self._addresses = _addresses(view)
        upcoming, self._next_view = self._next_view, asyncio.Event()
        upcoming.set()
        if (before.members, before.version) == (view.members, view.version):
            return
        states = Counter(member.state for member in view.members)
        moved = before.table.moved(view.table) if before.version != view.version else 0
        self.slots_owned = view.table.loads().get(view.me, 0)
        self._tools.events.view(states, self.slots_owned, moved)
        log.info(
            "new view of the cluster",
            extra={"view": view.version, "moved": moved, **{str(s): states[s] for s in states}},
        )


def _addresses(view: View) -> dict[str, PeerAddress]:
    return {
        member.id: PeerAddress(member.id, member.grpc, member.bulk, member.zone)
        for member in view.members
    }
