"""What a leaving member has in use goes to its next owners; and an offer that makes no sense is refused."""

import asyncio

import pytest

from cache_server.cluster.offers import BATCH_BYTES, SHARDS_MAX, Leaving, Taking
from cache_server.cluster.peers import PeerFailed
from cache_server.cluster.ports import PeerAddress
from cache_server.store.shard import ShardKey
from hotshard.core.blocks import Geometry
from hotshard.core.errors import InvalidRequest, OriginUnavailable
from hotshard.core.objects import ObjectInfo
from support.cluster import cluster, read
from support.content import content

GEOMETRY = Geometry(1 << 30, 1 << 20)
A, B, ME = (PeerAddress(name, "", "") for name in ("a", "b", "me"))


def key(name, size=1000):
    return ShardKey.of(ObjectInfo(f"s3://b/{name}", "v", size, 1), 0, GEOMETRY)


class Placed:
    """Everything was ours and is a's now, but for what is said otherwise."""

    me, view_version = "me", 7

    def __init__(self, *, others=(), orphans=(), to_b=()):
        self.others, self.orphans, self.to_b = others, orphans, to_b

    def owners(self, digest):
        if digest in self.orphans:
            return []
        return [B, A] if digest in self.to_b else [A, B]

    def suspect(self, id_):
        raise AssertionError(id_)

    def previous_owners(self, digest):
        return [B] if digest in self.others else [ME, B]


class Peers:
    def __init__(self):
        self.offers = []
        self.dead = set()

    async def offer(self, peer, shards, limit_s):
        if peer.id in self.dead:
            raise PeerFailed("unreachable")
        self.offers.append((peer.id, list(shards)))
        return len(shards), sum(each.size for each in shards)


def leaving(placed, peers, *keys):
    async def used_last(size_max):
        assert size_max == 1 << 30
        return list(keys)

    return Leaving(placed, peers, used_last).offer(1 << 30, 5.0)


async def test_what_was_ours_is_offered_to_who_owns_it_now():
    ours, for_b, replica, orphan = key("ours"), key("b"), key("replica"), key("orphan")
    placed = Placed(others={replica.digest}, orphans={orphan.digest}, to_b={for_b.digest})
    peers = Peers()
    assert await leaving(placed, peers, ours, for_b, replica, orphan) == (2000, 2000)
    assert sorted(peers.offers) == [("a", [ours]), ("b", [for_b])]


async def test_offers_are_cut_in_batches_what_was_used_last_first():
    keys = [key(str(i), BATCH_BYTES // 2) for i in range(3)] + [key("huge", BATCH_BYTES * 2)]
    peers = Peers()
    await leaving(Placed(), peers, *keys)
    assert [batch for _, batch in peers.offers] == [keys[:2], keys[2:3], keys[3:]]
    peers = Peers()
    await leaving(Placed(), peers, *(key(str(i)) for i in range(SHARDS_MAX + 1)))
    assert [len(batch) for _, batch in peers.offers] == [SHARDS_MAX, 1]


async def test_a_dead_heir_keeps_nobody():
    for_a, for_b = key("a"), key("b")
    peers = Peers()
    peers.dead.add("a")
    placed = Placed(to_b={for_b.digest})
    assert await leaving(placed, peers, for_a, for_b) == (2000, 1000)


async def test_an_offer_ends_in_time():
    class Hanging(Peers):
        async def offer(self, peer, shards, limit_s):
            await asyncio.Event().wait()

    async def used_last(_):
        return [key("a")]

    assert await Leaving(Placed(), Hanging(), used_last).offer(1, 0.05) == (1000, 0)


class Taker:
    def __init__(self, *, sealed=(), failing=()):
        self.sealed, self.failing = set(sealed), failing
        self.taken = 0

    async def make_resident(self, info, shards):
        if info.uri in self.failing:
            raise OriginUnavailable("away")
        self.sealed.add(key_of(info, *shards).digest)

    def took(self, size):
        self.taken += size

    def taking(self):
        return Taking(
            self.make_resident,
            lambda info: [key_of(info, 0)],
            self.sealed.__contains__,
            self.took,
        )


def key_of(info, index):
    return ShardKey.of(info, index, GEOMETRY)


async def test_only_what_is_not_there_is_fetched():
    here, missing, failing = (ObjectInfo(f"s3://b/{n}", "v", 10, 1) for n in ("h", "m", "f"))
    taker = Taker(sealed=[key_of(here, 0).digest], failing=[failing.uri])
    assert await taker.taking().take([(here, 0), (missing, 0), (failing, 0)]) == (1, 10)
    assert taker.taken == 10


@pytest.mark.parametrize("offered", [[(1, 1)], [(1, 0)] * (SHARDS_MAX + 1)])
async def test_an_offer_that_makes_no_sense_is_refused(offered):
    info = ObjectInfo("s3://b/x", "v", 10, 1)
    with pytest.raises(InvalidRequest):
        await Taker().taking().take([(info, index) for _, index in offered])


async def test_what_was_used_last_is_taken_over_from_the_leaver_not_from_the_origin(tmp_path):
    async with cluster(tmp_path, 3) as (origin, members):
        body = content(100_000)
        uri = origin.put("a", body)
        info = origin.info(uri)
        (digest, *_) = [key.digest for key in members[0].cache.shard_keys(info)]
        owners = members[0].placement.owners(digest)
        leaver = next(m for m in members if m.placement.me == owners[0].id)
        assert await read(leaver, uri) == body
        keys = await leaver.store.used_last(1 << 30)
        assert [each.uri for each in keys] == [uri] * len(keys)
        assert await leaver.store.used_last(0) == []
        heir = next(m for m in members if m is not leaver)
        for member in members:  # nobody but the heir is left
            member.placement.previous = [leaver.address]
            member.placement.members = [heir.address]
        fetched = origin.fetched_bytes
        taking = Taking(
            heir.cache.make_resident, heir.cache.shard_keys, heir.cache.is_sealed, lambda _: None
        )
        shards, size = await taking.take([(info, each.index) for each in keys])
        assert (shards, size) == (len(keys), sum(each.size for each in keys))
        assert origin.fetched_bytes == fetched
        assert await taking.take([(info, each.index) for each in keys]) == (0, 0)
