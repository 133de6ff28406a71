"""Several members in one process, and everything that may happen to them."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from cache_server.cluster import membership as module
from hotshard.core.members import Member, State
from support.town import TERMS, Town, agreed, sees, with_cluster
from support.waiting import comes

DIGESTS = [bytes([i]) + bytes(15) for i in range(256)]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Real time, in smaller units."""
    for name in ("SETTLE_S", "MEET_S", "DRAINING_S", "SILENT_S", "CALL_S"):
        monkeypatch.setattr(module, name, 0.02)
    monkeypatch.setattr(module, "SILENT_S_MAX", 0.1)
    monkeypatch.setattr(module, "MEET_EACH_S", 0.001)


@pytest.fixture
async def town():
    async with asyncio.TaskGroup() as group:
        town = Town(group)
        yield town
        town.close()


async def test_members_find_each_other_and_agree(town):
    await town.ready("a", "b", "c")
    for found in town.members.values():
        await sees(found, a="ready", b="ready", c="ready")
    a, b, c = town.members.values()
    for digest in DIGESTS:
        assert [p.id for p in a.owners(digest)] == [p.id for p in c.owners(digest)]
        assert all(p.grpc == f"{p.id}:1" and p.zone == "z" for p in a.owners(digest))
        assert all(p.bulk in (f"{p.id}:2", ":2") for p in b.owners(digest))
    assert a.slots_owned + b.slots_owned + c.slots_owned == 1024
    assert town.count("a", "hotshard_members", state="ready") == 3
    assert town.count("a", "hotshard_slots_owned") == a.slots_owned


async def test_one_that_dies_is_no_owner_and_keeps_its_slots_until_it_is_back(town):
    await town.ready("a", "b", "c")
    await sees(town.members["a"], a="ready", b="ready", c="ready")
    version = town.members["a"].view_version
    town.kill("c")
    await sees(town.members["a"], a="ready", b="ready", c="lost")
    a = town.members["a"]
    assert a.view_version == version
    assert all("c" not in [p.id for p in a.owners(d)] for d in DIGESTS)
    back = town.add("c")
    await back.settle(10.0)
    await back.become(State.READY)
    await sees(a, a="ready", b="ready", c="ready")
    assert a.view_version == version
    stood_in = [d for d in DIGESTS if a.owners(d)[0].id == "c"]
    assert stood_in
    assert all(a.previous_owners(d)[0].id == a.owners(d)[1].id for d in stood_in)


async def test_a_suspect_is_met_at_once(town, monkeypatch):
    await town.ready("a", "b", "c")
    monkeypatch.setattr(module, "MEET_S", 3600.0)
    a = town.members["a"]
    await sees(a, a="ready", b="ready", c="ready")
    meetings = town.count("a", "hotshard_meetings_total", outcome="ok")
    while town.count("a", "hotshard_meetings_total", outcome="ok") < meetings + 2:
        a.suspect("b")  # one may still be waiting the short time
        await asyncio.sleep(0.01)
    a.suspect("nobody")
    town.kill("c")
    a.suspect("c")
    await sees(a, a="ready", b="ready", c="lost")


async def test_who_drains_is_met_often_so_that_its_end_is_known(town, monkeypatch):
    await town.ready("a", "b", "c")
    monkeypatch.setattr(module, "MEET_S", 3600.0)
    a = town.members["a"]
    await town.members["c"].become(State.DRAINING)
    await sees(a, a="ready", b="ready", c="draining")
    town.kill("c")
    await sees(a, a="ready", b="ready", c="lost")


async def test_after_the_grace_time_its_slots_move(town):
    for name in "abc":
        town.add(name, grace_s=0.2)
    await town.ready("a", "b", "c")
    a = town.members["a"]
    await sees(a, a="ready", b="ready", c="ready")
    town.kill("c")
    await sees(a, a="ready", b="ready")
    await comes(lambda: a.view.table.ids == ("a", "b"))


async def test_draining_is_announced(town):
    await town.ready("a", "b")
    a, b = town.members["a"], town.members["b"]
    await sees(a, a="ready", b="ready")
    owned = [d for d in DIGESTS if a.owners(d)[0].id == "b"]
    await b.become(State.DRAINING)
    await sees(a, a="ready", b="draining")
    for digest in owned:
        assert [p.id for p in a.owners(digest)] == ["a"]
        assert [p.id for p in a.previous_owners(digest)] == ["b"]


async def test_the_views_end_when_the_node_drains(town):
    await town.ready("a")
    a = town.members["a"]
    seen = []

    async def watch():
        async for view in a.views():
            seen.append(str(view.member("a").state))

    async with asyncio.TaskGroup() as group:
        await sees(a, a="ready")
        group.create_task(watch())
        await asyncio.sleep(0)
        await a.become(State.DRAINING)
    assert seen[0] == "ready"
    assert seen[-1] == "draining"


async def test_scale_out_moves_its_share_and_remembers_who_had_it(town):
    await town.ready("a", "b")
    a = town.members["a"]
    await sees(a, a="ready", b="ready")
    before = {d: a.owners(d)[0].id for d in DIGESTS}
    await town.ready("a", "b", "c")
    await sees(a, a="ready", b="ready", c="ready")
    moved = [d for d in DIGESTS if a.owners(d)[0].id != before[d]]
    assert moved
    for digest in moved:
        assert a.owners(digest)[0].id == "c"
        assert a.previous_owners(digest)[0].id == before[digest]


async def test_another_cluster_is_refused_and_the_own_one_goes_on(town, caplog):
    town.add("x", terms=with_cluster("elsewhere"))
    town.add("y", terms=replace(TERMS, slots=2048))
    await town.ready("a", "b", "x", "y")
    a = town.members["a"]
    await sees(a, a="ready", b="ready")
    await comes(
        lambda: town.count("a", "hotshard_members_refused_total", reason="other_terms") >= 4
    )
    await agreed(a, town.members["b"])
    messages = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any("its cluster is 'elsewhere', ours 'town'" in m for m in messages)
    assert any("its slots is 2048, ours 1024" in m for m in messages)
    assert len(messages) < 40  # once each, not at every meeting


async def test_a_copied_disk_is_refused(town):
    await town.ready("a", "b")
    a = town.members["a"]
    await sees(a, a="ready", b="ready")
    registry = town.registries["b"]
    town.add("b", address="copy:1")
    town.registries["b"] = registry
    town.board.post("a:1", "b:1", "copy:1")
    await comes(lambda: town.count("a", "hotshard_members_refused_total", reason="duplicate_id"))
    assert a.view.member("b").grpc == "b:1"


async def test_nobody_is_there_yet(town):
    a = town.add("a")
    town.board.post("a:1", "b:1", "c:1")
    await a.settle(10.0)
    await a.become(State.READY)
    await sees(a, a="ready")
    assert town.count("a", "hotshard_meetings_total", outcome="silent") > 0


async def test_settling_gives_up(town, monkeypatch, caplog):
    async def never(address: str, me: Member, terms):
        await asyncio.Event().wait()

    monkeypatch.setattr(town.square, "meet", never)
    town.board.post("a:1", "b:1")
    a = town.add("a")
    await a.settle(0.05)
    assert "not everybody who is listed was tried" in caplog.text
    monkeypatch.setattr(module, "ANNOUNCE_S", 0.05)
    await a.become(State.READY)


async def test_somebody_known_by_another_name_is_met_when_he_calls(town, monkeypatch):
    """The list has host names, he calls himself by his address: he is looked for among the unmet."""
    monkeypatch.setattr(module, "SILENT_S", 30.0)
    monkeypatch.setattr(module, "SILENT_S_MAX", 30.0)
    town.board.post("a:1", "alias:1")
    a = town.add("a")
    await a.settle(10.0)
    await a.become(State.READY)
    town.add("b")
    b = town.members["b"]
    town.square.there["alias:1"] = b
    await b.settle(10.0)
    await b.become(State.READY)
    await sees(a, a="ready", b="ready")
    assert a.view.member("b").grpc == "alias:1"


async def test_two_who_refuse_each_other_do_not_keep_each_other_busy(town):
    town.add("x", terms=with_cluster("elsewhere"))
    await town.ready("a", "x")
    await asyncio.sleep(0.5)
    assert town.square.meetings < 200


async def test_views_can_be_left(town):
    await town.ready("a")
    async with aclosing(town.members["a"].views()) as views:
        first = await anext(views)
    assert first.me == "a"
