import asyncio

import pytest

from hotshard.core.blocks import shard_digest
from hotshard.core.errors import OriginUnavailable, StaleObject
from support.cache import BLOCK
from support.cluster import cluster, member, no_deadlines, read
from support.content import content
from support.waiting import comes


def owner_of(members, origin, uri):
    info = origin.info(uri)
    (first, *_) = members[0].placement.owners(shard_digest(uri, info.version, 0))
    return next(m for m in members if m.placement.me == first.id)


async def test_each_block_is_read_from_the_origin_once_by_the_cluster(tmp_path, monkeypatch):
    no_deadlines(monkeypatch)
    async with cluster(tmp_path, 4) as (origin, members):
        bodies = {}
        for i in range(20):
            body = content(i * 3000 + 1, seed=i)
            bodies[origin.put(f"{i}", body)] = body

        async def check(each, uri):
            assert await read(each, uri) == bodies[uri]

        async with asyncio.TaskGroup() as group:
            for each in members * 3:
                for uri in bodies:
                    group.create_task(check(each, uri))
        assert origin.fetched_bytes == sum(map(len, bodies.values()))
        assert sum(each.received() for each in members) == 3 * origin.fetched_bytes


async def test_a_dead_owner_costs_one_look_at_the_next(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(5 * BLOCK)
        uri = origin.put("a", body)
        owner = owner_of(members, origin, uri)
        await owner.bulk.close(0)
        others = [m for m in members if m is not owner]
        for each in others:
            assert await read(each, uri) == body
        assert origin.fetched_bytes == len(body)


async def test_with_all_peers_dead_the_origin_serves(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(3 * BLOCK)
        uri = origin.put("a", body)
        owner = owner_of(members, origin, uri)
        for each in members:
            await each.bulk.close(0)
        other = next(m for m in members if m is not owner)
        assert await read(other, uri) == body


async def test_the_previous_owner_is_asked_before_the_origin(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        body = content(9 * BLOCK + 5)
        uri = origin.put("a", body)
        for each in members:
            await read(each, uri)
        before = origin.fetched_bytes
        async with member(tmp_path / "new", origin, "new") as new:
            old = [each.address for each in members]
            for each in (*members, new):
                each.placement.previous = old
                each.placement.members = [new.address]
            assert await read(new, uri) == body
        assert origin.fetched_bytes == before


async def test_an_owner_cut_off_from_the_origin_is_helped(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(2 * BLOCK)
        uri = origin.put("a", body)
        owner = owner_of(members, origin, uri)
        info = origin.info(uri)

        class Away:
            def __getattr__(self, name):
                async def fail(*args, **kwargs):
                    raise OriginUnavailable("cut off")

                return fail

        guarded = owner.cache._table.of(uri)[0].source
        guarded._inner = owner.quick.origin = Away()
        owner.cache._catalog._learn(uri, info, 60)
        assert await read(owner, uri, version=info.version) == body
        other = next(m for m in members if m is not owner)
        assert await read(other, uri) == body


async def test_the_readers_of_an_owner_that_is_cut_off_are_helped_though_a_member_waits_too(
    tmp_path,
):
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(BLOCK)
        uri = origin.put("a", body)
        owner = owner_of(members, origin, uri)
        other = next(m for m in members if m is not owner)
        info = origin.info(uri)
        for each in (owner, other):
            each.cache._catalog._learn(uri, info, 60)
        guarded = owner.cache._table.of(uri)[0].source
        inner = guarded._inner
        asked = asyncio.Event()

        class Away:
            def __getattr__(self, name):
                return getattr(inner, name)

            async def fetch(self, want, target):
                asked.set()  # until our own reader has joined the member's flight
                await comes(lambda: all(f._flight.ours for f in owner.cache._fills))
                raise OriginUnavailable("cut off")

        guarded._inner = owner.quick.origin = Away()
        async with asyncio.TaskGroup() as group:
            theirs = group.create_task(read(other, uri, version=info.version))
            await asked.wait()
            own = group.create_task(read(owner, uri, version=info.version))
        assert (own.result(), theirs.result()) == (body, body)


async def test_disagreeing_views_only_cost_time(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        a, b = members
        a.placement.members = [b.address]
        b.placement.members = [a.address]
        body = content(4 * BLOCK)
        uri = origin.put("a", body)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(each, uri)) for each in members]
        assert [task.result() for task in tasks] == [body, body]
        # Counted when the last byte is out, which the reader may see before the server does.
        await comes(lambda: any(each.count("hotshard_served_not_owned_total") for each in members))


async def test_a_changed_object_is_said_to_be_stale(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        uri = origin.put("a", content(3 * BLOCK))
        owner = owner_of(members, origin, uri)
        other = next(m for m in members if m is not owner)
        info = origin.info(uri)
        origin.put("a", content(3 * BLOCK, seed=2))
        other.cache._catalog._learn(uri, info, 60)
        with pytest.raises(StaleObject):
            await other.cache.open(uri, info.version, 0, 1)
