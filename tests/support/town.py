"""Members of one cluster in one process: real memberships, and a town square where they meet."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry

from cache_server.cluster.meeting import Silent
from cache_server.cluster.membership import Membership, Tools
from cache_server.metrics.members import MemberMetrics
from hotshard.core.members import Candidate, Member, State, Terms
from hotshard.core.roster import Roster
from support.waiting import comes

TERMS = Terms("town", 1024, 2, 256 << 20)


class Board:
    """A provider whose list the test writes."""

    def __init__(self) -> None:
        self._candidates: Sequence[Candidate] = ()
        self._news = asyncio.Event()

    def post(self, *addresses: str, serving: bool = True) -> None:
        self._candidates = [Candidate(address, serving=serving) for address in addresses]
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def lists(self) -> AsyncIterator[Sequence[Candidate]]:
        while True:
            news = self._news
            yield self._candidates
            await news.wait()


class Square:
    """Who is at which address; a Meeter."""

    def __init__(self) -> None:
        self.there: dict[str, Membership] = {}
        self.meetings = 0

    async def meet(self, address: str, me: Member, terms: Terms) -> tuple[Member, Terms]:
        self.meetings += 1
        await asyncio.sleep(0)
        other = self.there.get(address)
        if other is None:
            raise Silent(address)
        return other.heard(me, terms), other.terms


class Town:
    """The board, the square, and who lives there."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.board = Board()
        self.square = Square()
        self.members: dict[str, Membership] = {}
        self.registries: dict[str, CollectorRegistry] = {}
        self._group = group
        self._tasks: dict[Membership, asyncio.Task[None]] = {}
        self._instances = 0

    def add(
        self, name: str, *, terms: Terms = TERMS, address: str = "", grace_s: float = 600.0
    ) -> Membership:
        """Somebody moves in; nobody knows yet."""
        self._instances += 1
        registry = self.registries[name] = CollectorRegistry()
        tools = Tools(self.board, self.square, MemberMetrics(registry), lambda: 0.5)
        me = Member(name, "", zone="z", instance=self._instances)
        found = Membership(Roster(me, terms, grace_s=grace_s), tools)
        place = address or f"{name}:1"
        found.located(place, ":2")
        self.members[name] = found
        self.square.there[place] = found
        self._tasks[found] = self._group.create_task(found.run())
        return found

    async def ready(self, *names: str) -> None:
        """They become members, one after the other."""
        self.board.post(*(f"{name}:1" for name in names))
        for name in names:
            found = self.members.get(name) or self.add(name)
            await found.settle(10.0)
            await found.become(State.READY)
        await agreed(*(m for m in self.members.values() if m.terms == TERMS))

    def kill(self, name: str) -> None:
        self._tasks.pop(self.members.pop(name)).cancel()
        self.square.there = {k: v for k, v in self.square.there.items() if v.me != name}

    def count(self, name: str, metric: str, **labels: str) -> float:
        return self.registries[name].get_sample_value(metric, labels) or 0.0

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()


async def agreed(*memberships: Membership) -> None:
    """Wait until everybody has the table of all who are ready."""
    everybody = tuple(sorted(each.me for each in memberships))
    await comes(lambda: all(each.view.table.ids == everybody for each in memberships))
    assert len({each.view_version for each in memberships}) == 1


async def sees(membership: Membership, **states: str) -> None:
    """Wait until somebody sees exactly these."""
    await comes(lambda: {m.id: str(m.state) for m in membership.view.members} == states)


def with_cluster(name: str) -> Terms:
    return replace(TERMS, cluster=name)
