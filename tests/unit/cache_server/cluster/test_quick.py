"""What a member owns of small objects is begun at the origin without a task; the promises are the same."""

import asyncio
import random
from typing import Any

import pytest

from cache_server.cluster import quick
from cache_server.cluster.quick import GuardedQuick
from cache_server.opened import Ask, Opened
from cache_server.origins.origin import Fetched, Interrupted, Target, Want
from hotshard.core.blocks import shard_digest
from hotshard.core.errors import NotFound, OriginUnavailable
from hotshard.core.objects import ObjectInfo
from support.cache import BLOCK, read_opened
from support.cluster import cluster, member

WANT = Want(ObjectInfo("s3://memory/a", "v1", 3, 0), 0, 3)


async def read_all(each, uris):
    """As one OpenMany."""
    answers = await each.cache.open_many([Ask(uri, "", 0, BLOCK) for uri in uris])
    return [read_opened(a, 0, BLOCK) if isinstance(a, Opened) else a for a in answers]


async def list_all(each, origin):
    await each.cache.list_page(origin.prefix, recursive=True, token="", page_size=1000)


def owned_by(each, origin, uris):
    me, owners = each.placement.me, each.placement.owners
    digests = {uri: shard_digest(uri, origin.info(uri).version, 0) for uri in uris}
    return [uri for uri, digest in digests.items() if owners(digest)[0].id == me]


@pytest.mark.parametrize("trouble", ["none", "refused", "interrupted", "not quick at all"])
async def test_one_request_for_each_object_whoever_asks(tmp_path, trouble):
    async with cluster(tmp_path, 3, quick=trouble != "not quick at all") as (origin, members):
        bodies = [random.Random(i).randbytes(1 + i * 31) for i in range(90)]
        uris = [origin.put(f"o/{i:03}", body) for i, body in enumerate(bodies)]
        for each in members:
            each.quick.refuse = 10 if trouble == "refused" else 0
            each.quick.interrupt = 10 if trouble == "interrupted" else 0
            await list_all(each, origin)
        for found in await asyncio.gather(*(read_all(each, uris) for each in members)):
            assert found == bodies
        assert origin.asked["GET"] == 90
        begun = sum(each.quick.begun for each in members)
        if trouble == "not quick at all":
            assert not begun
        else:
            assert begun >= 10  # the first ones come before there are blank files
        for each in members:
            assert await read_all(each, uris) == bodies
        assert origin.asked["GET"] == 90


async def test_who_may_have_it_from_before_is_asked_first(tmp_path):
    async with cluster(tmp_path, 2) as (origin, members):
        uris = [origin.put(f"{i}", b"x" * (i + 1)) for i in range(20)]
        for each in members:
            await list_all(each, origin)
            await read_all(each, uris)
        before = origin.asked["GET"]
        async with member(tmp_path / "new", origin, "new") as new:
            old = [each.address for each in members]
            for each in (*members, new):
                each.placement.previous = old
                each.placement.members = [new.address]
            await list_all(new, origin)
            assert await read_all(new, uris) == [b"x" * (i + 1) for i in range(20)]
            assert not new.quick.begun
        assert origin.asked["GET"] == before


async def test_an_owner_cut_off_from_the_origin_is_helped(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        owner = members[0]
        before = [origin.put(f"before/{i}", b"y") for i in range(30)]
        await list_all(owner, origin)
        await read_all(owner, before)  # from here on it has blank files
        uris = [origin.put(f"{i}", b"x" * (i + 1)) for i in range(30)]
        owner.cache._catalog.forget(origin.prefix)
        await list_all(owner, origin)
        assert owned_by(owner, origin, uris)
        begun = owner.quick.begun

        class Away:
            async def fetch(self, want, target):
                raise OriginUnavailable("cut off")

        away: Any = Away()
        guarded: Any = owner.cache._table.of(uris[0])[0].source
        guarded._inner = owner.quick.origin = away
        assert await read_all(owner, uris) == [b"x" * (i + 1) for i in range(30)]
        assert owner.quick.begun > begun
        assert origin.asked["GET"] == 60


class Inner:
    """Begins what a test tells it, and remembers the time it was given."""

    def __init__(self):
        self.limits_s = []
        self.landed = None

    def begin_fetch(self, want, target, landed, limit_s=float("inf")):
        self.limits_s.append(limit_s)
        self.landed = landed
        return True


class Guarded:
    def __init__(self):
        self.is_well = True
        self.told = 0

    def answered(self):
        self.told += 1

    async def fetch(self, want, target):
        return "all of it again"

    async def within_time(self, want, rest):
        return await rest()


@pytest.fixture
def begun():
    inner: Any = Inner()
    guarded: Any = Guarded()
    outcomes: list[Any] = []
    made = GuardedQuick(inner, guarded)
    assert made.begin_fetch(WANT, Target(0, 0), outcomes.append)
    return inner, guarded, outcomes, made


def test_what_comes_is_told_on_and_speaks_for_the_origin(begun):
    inner, guarded, outcomes, _ = begun
    fetched = Fetched(1, WANT.algorithm)
    inner.landed(fetched)
    assert outcomes == [fetched]
    assert guarded.told == 1
    assert inner.limits_s == [quick.QUICK_S]


def test_an_origin_that_is_away_is_not_asked_like_this(begun):
    _, guarded, outcomes, made = begun
    guarded.is_well = False
    assert not made.begin_fetch(WANT, Target(0, 0), outcomes.append)
    assert not outcomes


async def test_what_does_not_get_through_goes_on_within_the_guard(begun):
    inner, guarded, outcomes, _ = begun

    async def rest():
        return "the rest"

    inner.landed(Interrupted(rest))
    inner.landed(OriginUnavailable("away"))
    gone = NotFound("gone")
    inner.landed(gone)
    assert [await outcome.go_on() for outcome in outcomes[:2]] == ["the rest", "all of it again"]
    assert outcomes[2] is gone
    assert not guarded.told
