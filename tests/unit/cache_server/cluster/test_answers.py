"""What a node says of its cluster."""

import asyncio
from contextlib import aclosing

import pytest

from cache_server.cluster import membership as module
from cache_server.cluster.answers import TICKET_S, Alone, InCluster, Locating
from cache_server.cluster.meeting import terms_to_pb
from hotshard.core import bulkwire
from hotshard.core.blocks import Geometry, shard_digest
from hotshard.core.errors import InvalidRequest
from hotshard.core.members import Member
from hotshard.core.objects import ObjectInfo
from hotshard.core.slots import Table
from hotshard.v1 import cache_pb2 as pb
from hotshard.wire import info_to_pb, member_to_pb
from support.town import TERMS, Town, sees

GEOMETRY = Geometry(1 << 20, 1 << 16)
INFO = ObjectInfo("s3://bucket/key", '"v"', (5 << 20) + 1, 0)
SECRET = b"0123456789abcdef"


@pytest.fixture
async def town(monkeypatch):
    for name in ("SETTLE_S", "MEET_S", "SILENT_S", "CALL_S"):
        monkeypatch.setattr(module, name, 0.02)
    async with asyncio.TaskGroup() as group:
        town = Town(group)
        await town.ready("a", "b", "c")
        yield town
        town.close()


class Taker:
    async def take(self, offered):
        return len(offered), sum(info.size + index for info, index in offered)


def answers(town, name="a", **locating):
    return InCluster(town.members[name], Locating(GEOMETRY, **locating), Taker())


async def test_members_and_their_table(town):
    a = town.members["a"]
    await sees(a, a="ready", b="ready", c="ready")
    reply = answers(town).members(with_table=True)
    assert (reply.cluster, reply.me, reply.zone) == ("town", "a", "z")
    assert reply.view_version == a.view_version
    assert [m.id for m in reply.members] == ["a", "b", "c"]
    table = reply.table
    copy = Table.unpacked(table.slots, tuple(table.ids), table.width, table.rows)
    assert copy == a.view.table
    assert not answers(town).members(with_table=False).HasField("table")


async def test_changes_follow_the_views(town):
    async with aclosing(answers(town).changes(with_table=False)) as changes:
        states: dict[str, str] = {}
        await anext(changes)
        town.kill("c")
        async with asyncio.timeout(90):
            while states.get("c") != "lost":
                states = {m.id: m.state for m in (await anext(changes)).members}
    assert states == {"a": "ready", "b": "ready", "c": "lost"}


async def test_locate(town):
    reply = answers(town).locate(INFO, (1 << 20) - 1, 2)
    assert [s.index for s in reply.shards] == [0, 1]
    assert [s.offset for s in reply.shards] == [0, 1 << 20]
    for shard in reply.shards:
        digest = shard_digest(INFO.uri, INFO.version, shard.index)
        assert shard.digest == digest
        assert list(shard.owners) == [p.id for p in town.members["a"].owners(digest)]
    assert {m.id for m in reply.members} == {id_ for s in reply.shards for id_ in s.owners}
    assert reply.object.size_bytes == INFO.size
    assert reply.ticket == b""
    whole = answers(town).locate(INFO, 0, 0)
    assert [s.size_bytes for s in whole.shards] == [1 << 20] * 5 + [1]


async def test_locate_gives_a_ticket_for_the_bulk_ports(town):
    reply = answers(town, secret=SECRET, clock=lambda: 1000.0).locate(INFO, 0, 1)
    request = bulkwire.Request(
        cluster=bulkwire.cluster_id("town"),
        uri=INFO.uri,
        version=INFO.version,
        size=INFO.size,
        mtime_ns=INFO.mtime_ns,
        offset=5,
        length=7,
        expires=reply.ticket_expires,
        ticket=reply.ticket,
    )
    assert bulkwire.is_genuine(request, SECRET, 1000.0 + TICKET_S)
    assert not bulkwire.is_genuine(request, SECRET, 1001.0 + TICKET_S)
    assert not bulkwire.is_genuine(request, b"another secret..", 1000.0)


async def test_too_many_shards_at_once():
    huge = ObjectInfo("s3://bucket/huge", "v", 1 << 40, 0)
    with pytest.raises(InvalidRequest, match="in parts"):
        Alone(Locating(GEOMETRY)).locate(huge, 0, 0)


async def test_explain_adds_owners(town):
    digest = shard_digest(INFO.uri, INFO.version, 0)
    reply = pb.ExplainReply(shards=[pb.ShardExplanation(digest=digest.hex())])
    (shard,) = answers(town).explain(reply).shards
    a = town.members["a"]
    assert shard.slot == a.view.table.slot(digest)
    assert list(shard.owners) == [p.id for p in a.owners(digest)]
    assert list(shard.away_owners) == []


async def test_explain_says_which_owners_are_away(town):
    a = town.members["a"]
    digests = [shard_digest(INFO.uri, INFO.version, index) for index in range(50)]
    digest = next(d for d in digests if a.view.table.owners(d)[0] != "a")
    gone = a.view.table.owners(digest)[0]
    town.kill(gone)
    while gone not in a.view.away:
        a.suspect(gone)
        await asyncio.sleep(0.01)
    reply = pb.ExplainReply(shards=[pb.ShardExplanation(digest=digest.hex())])
    (shard,) = answers(town).explain(reply).shards
    assert list(shard.away_owners) == [gone]
    assert gone not in shard.owners


async def test_status(town):
    a = town.members["a"]
    await sees(a, a="ready", b="ready", c="ready")
    status = answers(town).status()
    assert (status.name, status.me.id, status.members) == ("town", "a", {"ready": 3})
    assert status.slots_owned == a.slots_owned
    assert status.slots == 1024


async def test_meeting_tells_who_we_are(town):
    request = pb.MeetRequest(terms=terms_to_pb(TERMS), me=member_to_pb(Member("n", "n:1")))
    reply = answers(town).meet(request)
    assert reply.me.id == "a"
    assert reply.terms == terms_to_pb(TERMS)


async def test_a_node_on_its_own():
    alone = Alone(Locating(GEOMETRY))
    assert alone.cluster == ""
    assert alone.members(with_table=True) == pb.MembersReply()
    assert [each async for each in alone.changes(with_table=True)] == [pb.MembersReply()]
    (shard,) = alone.locate(INFO, 0, 1).shards
    assert list(shard.owners) == []
    reply = pb.ExplainReply(shards=[pb.ShardExplanation(digest="00")])
    assert list(alone.explain(reply).shards[0].owners) == []
    with pytest.raises(InvalidRequest, match="in no cluster, not in 'prod'"):
        alone.meet(pb.MeetRequest(terms=pb.Terms(cluster="prod")))


async def test_what_is_offered_is_taken_over(town):
    request = pb.OfferRequest()
    request.shards.add(object=info_to_pb(ObjectInfo("s3://b/a", "v", 100, 1)), index=2)
    reply = await answers(town).offered(request)
    assert (reply.taken_shards, reply.taken_bytes) == (1, 102)
    with pytest.raises(InvalidRequest, match="no cluster"):
        await Alone(Locating(GEOMETRY)).offered(request)
