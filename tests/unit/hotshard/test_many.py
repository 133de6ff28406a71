"""Batches: what is asked together, and that the next batch is under way while one is read."""

from typing import Any

import pytest

from hotshard import many
from hotshard.calls import (
    Call,
    Fetch,
    Fetched,
    Open,
    Opened,
    OpenMany,
    Page,
    Piece,
    Prefetch,
    Prefix,
    StatMany,
    WarmProgress,
    WarmStatus,
)
from hotshard.core.errors import (
    HotshardError,
    NotFound,
    Overloaded,
    ServerUnavailable,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.steps import ReadBytes, Submit, Wait
from unit.hotshard.test_handles import NoFile
from unit.hotshard.test_ops import World


def uri(number: int) -> str:
    return f"s3://bucket/{number:04}"


def opened(ask: Open, version: str = "v1") -> Opened:
    info = ObjectInfo(ask.uri, version, 10, 1)
    return Opened(info, [Piece(0, 10, NoFile(), 0, sealed=True)], 60.0)


def answer(call: Call) -> Any:
    match call:
        case OpenMany():
            return [opened(each) for each in call.opens]
        case Open():
            return opened(call)
        case Fetch():
            return Fetched(ObjectInfo(call.uri, "v1", 10, 1), bytes(10), 10)
        case _:
            raise AssertionError(call)


def read(world: World, asks: Any, *, return_errors: bool = False) -> Any:
    operation = many.read_many(world.ops, many.ranges(asks), return_errors=return_errors)
    return world.run(operation)


def traced(world: World) -> list[str]:
    """Submits, waits and the first read after each."""
    trace: list[str] = []
    do = world.do

    def watched(step: Any) -> Any:
        name = type(step).__name__
        if isinstance(step, Submit | Wait) or (isinstance(step, ReadBytes) and trace[-1] != name):
            trace.append(name)
        return do(step)

    world.do = watched  # type: ignore[method-assign]
    return trace


def test_batches_are_cut_and_the_next_is_under_way():
    world = World(answer)
    trace = traced(world)
    assert read(world, [uri(i) for i in range(300)]) == [bytes(range(10))] * 300
    assert [len(call.opens) for call in world.calls if isinstance(call, OpenMany)] == [128, 128, 44]
    assert trace == [
        *("Submit", "Submit", "Wait", "ReadBytes"),
        *("Submit", "Wait", "ReadBytes"),
        *("Wait", "ReadBytes"),
    ]


def test_what_is_under_a_lease_is_not_asked_for():
    world = World(answer)
    uris = [uri(i) for i in range(60)]
    read(world, uris)
    read(world, uris)
    assert len(world.calls) == 1
    read(world, [uri(0), uri(99), uri(1)])
    assert world.calls[1:] == [OpenMany([Open(uri(99), "", 0, many.BATCH_ASK_BYTES)])]


def test_long_uris_make_smaller_batches():
    world = World(answer)
    read(world, [f"s3://bucket/{i:04}" + "é" * 500 for i in range(100)])
    for call in world.calls:
        assert isinstance(call, OpenMany)
        assert sum(len(each.uri.encode()) for each in call.opens) < many.CALL_BYTES + 4096


def test_a_batch_that_could_not_be_sent_early_is_sent_again():
    world = World(answer)
    lost = [True]
    do = world.do

    def failing(step: Any) -> Any:
        if isinstance(step, Submit) and lost and lost.pop():
            raise ServerUnavailable("restarting")
        return do(step)

    world.do = failing  # type: ignore[method-assign]
    assert len(read(world, [uri(i) for i in range(200)])) == 200


@pytest.mark.parametrize("passes_files", [True, False])
def test_one_refusal_of_a_batch(passes_files: bool):
    def refusing(call: Call) -> Any:
        if isinstance(call, OpenMany):
            return [NotFound("no") if each.uri == uri(1) else opened(each) for each in call.opens]
        assert isinstance(call, Fetch)
        if call.uri == uri(1):
            raise NotFound("no")
        return Fetched(ObjectInfo(call.uri, "v1", 10, 1), bytes(range(10)), 10)

    world = World(refusing, passes_files=passes_files)
    results = read(world, [uri(0), uri(1), uri(2)], return_errors=True)
    assert [type(result) for result in results] == [bytes, NotFound, bytes]
    with pytest.raises(NotFound):
        read(world, [uri(1)])


@pytest.mark.parametrize("refusal", [Overloaded("full"), StaleObject("changed")])
def test_a_passing_refusal_in_a_batch_is_tried_alone(refusal: HotshardError):
    def refusing(call: Call) -> Any:
        return [refusal] if isinstance(call, OpenMany) else answer(call)

    world = World(refusing)
    assert read(world, [uri(0)]) == [bytes(range(10))]
    assert [type(call) for call in world.calls] == [OpenMany, Open]


def test_fetches_run_side_by_side_but_not_all_at_once():
    world = World(answer, passes_files=False)
    trace = traced(world)
    read(world, [uri(i) for i in range(30)])
    under_way = most = 0
    for name in trace:
        under_way += 1 if name == "Submit" else -1
        most = max(most, under_way)
    assert most == many.FETCHES_AHEAD


def test_portions_of_uris():
    seen: list[int] = []

    def stats(call: Call) -> Any:
        assert isinstance(call, StatMany)
        seen.append(len(call.uris))
        return [ObjectInfo(each, "v", 1, 1) for each in call.uris]

    world = World(stats)
    uris = [uri(i) for i in range(250)]
    assert [info.uri for info in world.run(many.stat_many(world.ops, uris))] == uris
    assert seen == [100, 100, 50]


def test_entries_come_in_one_order():
    page = Page([ObjectInfo("s3://b/b", "", 1, 1)], [Prefix("s3://b/a/"), Prefix("s3://b/c/")], "")
    assert [e.uri for e in many.entries(page)] == ["s3://b/a/", "s3://b/b", "s3://b/c/"]


def progress(objects: int, *, done: bool) -> WarmProgress:
    return WarmProgress(planned_objects=objects, resident_objects=objects * done, done=done)


def test_warm_adds_up_its_jobs():
    states: dict[str, int] = {}

    def warming(call: Call) -> Any:
        if isinstance(call, Prefetch):
            states[f"job{len(states)}"] = len(call.uris)
            return f"job{len(states) - 1}"
        assert isinstance(call, WarmStatus)
        return progress(states[call.job_id], done=True)

    world = World(warming)
    seen: list[WarmProgress] = []
    total = world.run(many.warm(world.ops, [uri(i) for i in range(250)], seen.append))
    assert total == progress(250, done=True)
    assert [p.done for p in seen] == [False, False, True]
    assert world.run(many.warm(world.ops, [], None)).complete


def test_warm_begins_again_when_a_restarted_server_has_forgotten_the_job():
    answers: list[Any] = ["job1", NotFound("no job"), "job2", progress(1, done=True)]

    def forgetting(_: Call) -> Any:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    world = World(forgetting)
    assert world.run(many.warm(world.ops, [uri(0)], None)).complete


def test_warm_does_not_begin_again_for_ever():
    def forgetting(call: Call) -> Any:
        if isinstance(call, Prefetch):
            return "job"
        raise NotFound("no job")

    world = World(forgetting)
    with pytest.raises(NotFound):
        world.run(many.warm(world.ops, [uri(0)], None))
    assert len(world.calls) == 2 * (many.WARM_RESTARTS + 1)
