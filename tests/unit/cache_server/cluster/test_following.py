"""Memberships that follow EndpointSlices, through everything an API server does: nobody alive is lost.

Real memberships, real providers, and an API server that speaks the wire format over HTTPS.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from cache_server.cluster.membership import Membership, Tools
from cache_server.cluster.providers.kubernetes import KubernetesOptions, KubernetesProvider
from cache_server.metrics.members import MemberMetrics
from hotshard.core.backoff import Backoff
from hotshard.core.members import Member, State
from hotshard.core.roster import Roster
from support.kube_api import SERVICE, KubeApi, endpoint, slice_of
from support.town import TERMS, Square
from support.waiting import comes

QUICK = Backoff(attempts=100, initial_s=0.02, cap_s=0.1)


class Cluster:
    """Pods with an API server that knows them; watches that nobody is lost who is alive."""

    def __init__(self, api, group):
        self.api = api
        self.group = group
        self.square = Square()
        self.members = {}
        self.tasks = []
        self.lost = []
        self.alive = set()

    def add(self, number):
        name, address = f"n{number}", f"10.0.0.{number}"
        options = KubernetesOptions(
            service=SERVICE, url=self.api.url, account=str(self.api.account)
        )
        provider = KubernetesProvider(options, {}, lambda: 0.5, QUICK)
        events = MemberMetrics(CollectorRegistry())
        tools = Tools(provider, self.square, events, lambda: 0.5)
        found = Membership(Roster(Member(name, "", zone="eu-1a", instance=number), TERMS), tools)
        found.located(f"{address}:7070", ":7071")
        self.square.there[f"{address}:7070"] = found
        self.members[name] = found
        self.tasks.append(self.group.create_task(found.run()))
        return found

    async def ready(self, *numbers):
        for number in numbers:
            found = self.members.get(f"n{number}") or self.add(number)
            await found.settle(10.0)
            await found.become(State.READY)
        names = {f"n{number}" for number in numbers}
        await self.agree(names | self.alive)
        self.alive |= names
        self.tasks += [self.group.create_task(self._watch(self.members[name])) for name in names]

    async def _watch(self, membership):
        """No view is without somebody who is alive, or calls him lost."""
        async for view in membership.views():
            states = {member.id: member.state for member in view.members}
            self.lost += [
                (membership.me, name, states.get(name))
                for name in self.alive
                if states.get(name) not in {State.READY, State.DRAINING}
                or name not in view.table.ids
            ]

    async def agree(self, names):
        await comes(
            lambda: all(
                {m.id for m in self.members[name].view.members if m.state is State.READY} == names
                and set(self.members[name].view.table.ids) == names
                for name in names
            )
        )

    async def watched(self, more_than=0):
        """Every provider watches (again)."""
        await comes(lambda: self.api.watching >= len(self.members) and self.api.watches > more_than)


@pytest.fixture
async def cluster(tmp_path):
    api = KubeApi(tmp_path)
    await api.start()
    async with asyncio.TaskGroup() as group:
        found = Cluster(api, group)
        api.put(pods(1, 2, 3))
        await found.ready(1, 2, 3)
        await found.watched()
        yield found
        for task in found.tasks:
            task.cancel()
    await api.stop()


def pods(*numbers, unready=()):
    return slice_of("a", [endpoint(f"10.0.0.{n}", ready=n not in unready) for n in numbers])


@asynccontextmanager
async def nobody_is_lost(cluster):
    assert cluster.lost == []
    yield
    await cluster.agree(set(cluster.alive))
    assert cluster.lost == []


async def test_scale_out_and_in(cluster):
    async with nobody_is_lost(cluster):
        cluster.api.put(pods(1, 2, 3, 4))
        await cluster.ready(4)
    cluster.square.there.pop("10.0.0.4:7070")
    cluster.api.put(pods(1, 2, 3))
    stayed = ("n1", "n2", "n3")
    await comes(
        lambda: all(cluster.members[n].view.member("n4").state is not State.READY for n in stayed)
    )
    # Whoever watches has seen it: the watch of this test works.
    await comes(lambda: {by for by, _, _ in cluster.lost} == set(stayed))
    assert {name for _, name, _ in cluster.lost} == {"n4"}
    for name in stayed:  # it may come back: its part waits for it, and nobody else's moves
        assert set(cluster.members[name].view.table.ids) == {*stayed, "n4"}


async def test_readiness_that_flaps(cluster):
    async with nobody_is_lost(cluster):
        for _ in range(3):
            cluster.api.put(pods(1, 2, 3, unready=(2,)))
            await comes(lambda: cluster.members["n1"].view.member("n2").state is State.DRAINING)
            cluster.api.put(pods(1, 2, 3))
            await cluster.agree({"n1", "n2", "n3"})


async def test_streams_that_break_and_events_that_are_cut(cluster):
    async with nobody_is_lost(cluster):
        for _ in range(3):
            before = cluster.api.watches
            cluster.api.break_streams()
            await cluster.watched(before)
        cluster.api.cut_events = 3
        cluster.api.put(pods(1, 2, 3))
        await comes(lambda: not cluster.api.cut_events)
        await cluster.watched()


async def test_a_version_that_is_gone(cluster):
    async with nobody_is_lost(cluster):
        lists = cluster.api.lists
        cluster.api.compact()
        cluster.api.break_streams()
        await comes(lambda: cluster.api.lists >= lists + 3)
        await cluster.watched()


async def test_a_token_that_is_rotated(cluster):
    async with nobody_is_lost(cluster):
        for number in range(3):
            before = cluster.api.watches
            cluster.api.rotate_token(f"token-{number}")
            cluster.api.break_streams()
            await cluster.watched(before)


async def test_an_api_server_that_is_away_and_comes_back(cluster):
    async with nobody_is_lost(cluster):
        await cluster.api.stop()
        await asyncio.sleep(0.5)  # a few attempts that fail
        for membership in cluster.members.values():
            assert {
                m.id for m in membership.view.members if m.state is State.READY
            } == cluster.alive
        await cluster.api.start()
        await cluster.watched()
        cluster.api.put(pods(1, 2, 3, 4))
        await cluster.ready(4)
