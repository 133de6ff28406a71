"""Operations driven by a script: what they ask for, when they retry, when they give up."""

import mmap
from collections.abc import Callable
from typing import Any

import pytest

from hotshard.calls import Call, Fetch, Fetched, Open, Opened, Piece, Stat, Touch
from hotshard.core.errors import (
    CorruptData,
    HotshardError,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    ServerUnavailable,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.handles import Handle, HandleTable
from hotshard.ops import ASK_BYTES, Limits, Operations
from hotshard.steps import Pause, ReadBytes, ReadInto, Step, Submit, Tell, Wait
from unit.hotshard.test_handles import NoFile

URI = "s3://bucket/a"


class World:
    """A server, files and a clock that exist only here."""

    def __init__(self, answer: Callable[[Call], Any], *, passes_files: bool = True) -> None:
        self.now = 1000.0
        self.answer = answer
        self.calls: list[Call] = []
        self.told: list[Touch] = []
        self.paused: list[float] = []
        self.table = HandleTable(100)
        self.call_s = 0.0
        self.ops = Operations(
            self.table,
            Limits(timeout_s=60.0, reconnect_s=30.0),
            passes_files=passes_files,
            clock=lambda: self.now,
            random_unit=lambda: 0.5,
        )

    def run(self, operation: Any) -> Any:
        result: Any = None
        failure: HotshardError | None = None
        while True:
            try:
                step = operation.throw(failure) if failure else operation.send(result)
            except StopIteration as stop:
                return stop.value
            failure = None
            try:
                result = self.do(step)
            except HotshardError as error:
                failure = error

    def do(self, step: Step) -> Any:
        match step:
            case Submit():
                return step.call
            case Wait():
                call: Any = step.ticket
                self.calls.append(call)
                self.now += self.call_s
                return self.answer(call)
            case Tell():
                return self.told.append(step.touch)
            case Pause():
                self.now += step.seconds
                return self.paused.append(step.seconds)
            case ReadBytes():
                return bytes((step.offset + i) % 256 for i in range(step.count))
            case ReadInto():
                step.view[:] = bytes((step.offset + i) % 256 for i in range(len(step.view)))
                return len(step.view)


class NoBytes(World):
    """Files are empty; what is read into a buffer is only counted."""

    def do(self, step: Step) -> Any:
        match step:
            case ReadBytes():
                return b""
            case ReadInto():
                return len(step.view)
            case _:
                return super().do(step)


def info(size: int = 100, version: str = "v1") -> ObjectInfo:
    return ObjectInfo(URI, version, size, 1)


def opened(size: int = 100, version: str = "v1", lease_s: float = 60.0) -> Opened:
    return Opened(info(size, version), [Piece(0, size, NoFile(), 0, sealed=True)], lease_s)


def in_turn(*answers: Any) -> Callable[[Call], Any]:
    """Gives out answers one after the other; errors are raised, the last one stays."""
    left = list(answers)

    def answer(_: Call) -> Any:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def test_a_lease_saves_the_call():
    world = World(lambda _: opened())
    assert world.run(world.ops.read(URI, 0, 10)) == bytes(range(10))
    assert world.run(world.ops.read(URI, 10, 10)) == bytes(range(10, 20))
    assert world.run(world.ops.stat(URI)) == info()
    assert world.calls == [Open(URI, "", 0, 10)]
    world.now += 60
    world.run(world.ops.read(URI, 0, 10))
    assert len(world.calls) == 2


def test_overloaded_is_asked_again_when_the_server_says():
    world = World(in_turn(Overloaded("full", retry_after_s=3.0), opened()))
    assert len(world.run(world.ops.read(URI, 0, None))) == 100
    assert world.paused == [3.0]


def test_overloaded_for_ever_is_given_up_in_time():
    world = World(in_turn(Overloaded("full", retry_after_s=7.0)))
    with pytest.raises(Overloaded):
        world.run(world.ops.read(URI, 0, None))
    assert 50 <= sum(world.paused) < 60


def test_a_restarting_server_is_waited_for():
    world = World(in_turn(*[ServerUnavailable("gone")] * 8, opened()))
    assert len(world.run(world.ops.read(URI, 0, None))) == 100
    assert world.paused == sorted(world.paused)
    assert max(world.paused) <= 1.0


def test_a_server_that_stays_away_is_given_up_in_time():
    world = World(in_turn(ServerUnavailable("gone")))
    with pytest.raises(ServerUnavailable):
        world.run(world.ops.stat(URI))
    assert 28 <= sum(world.paused) < 30


def test_no_answer_within_the_timeout_is_not_asked_again():
    world = World(in_turn(ServerUnavailable("does not answer")))
    world.call_s = 62.0
    with pytest.raises(ServerUnavailable):
        world.run(world.ops.stat(URI))
    assert len(world.calls) == 1


@pytest.mark.parametrize("error", [NotFound("no"), InvalidRequest("no"), InternalError("no")])
def test_other_refusals_are_final(error: HotshardError):
    world = World(in_turn(error))
    with pytest.raises(type(error)):
        world.run(world.ops.read(URI, 0, None))
    assert len(world.calls) == 1
    assert world.paused == []


def test_an_object_that_changed_under_a_lease_is_read_anew_and_whole():
    old = Opened(info(), [Piece(0, 50, NoFile(), 0, sealed=False)], 60.0)
    world = World(in_turn(old, StaleObject("changed"), opened(version="v2")))
    assert world.run(world.ops.read(URI, 0, 100)) == bytes(range(100))
    assert world.calls == [Open(URI, "", 0, 100), Open(URI, "v1", 50, 50), Open(URI, "", 0, 100)]
    assert world.table.handles[URI].info.version == "v2"


def test_read_into_starts_again_when_the_object_changed():
    old = Opened(info(), [Piece(0, 50, NoFile(), 0, sealed=False)], 60.0)
    world = World(in_turn(old, StaleObject("changed"), opened(version="v2")))
    buffer = bytearray(100)
    assert world.run(world.ops.read_into(URI, memoryview(buffer), 0)) == 100
    assert buffer == bytes(range(100))


def test_a_pinned_read_does_not_take_another_version():
    for answer in (StaleObject("changed"), opened(version="v2")):
        world = World(in_turn(answer))
        with pytest.raises(StaleObject):
            world.run(world.ops.read_at(Handle(info()), 0, 10))


def test_a_big_object_is_asked_for_in_portions():
    size = 3 * ASK_BYTES + 5

    def answer(call: Call) -> Opened:
        assert isinstance(call, Open)
        stop = min(size, call.offset + call.length)
        return Opened(info(size), [Piece(call.offset, stop, NoFile(), 0, sealed=False)], 60.0)

    world = NoBytes(answer)
    handle = world.run(world.ops.handle(URI))
    with mmap.mmap(-1, size) as memory, memoryview(memory) as view:
        assert world.run(world.ops.read_at_into(handle, 0, view)) == size
    asked = [call.length for call in world.calls if isinstance(call, Open)]
    assert asked == [0, ASK_BYTES, ASK_BYTES, ASK_BYTES, 5]


def test_what_a_reply_says_beyond_the_question_is_used():
    beyond = Opened(info(), [Piece(0, 80, NoFile(), 0, sealed=False)], 60.0)
    world = World(lambda _: beyond)
    handle = world.run(world.ops.handle(URI, 0, 10))
    for offset in range(0, 80, 10):
        world.run(world.ops.read_at(handle, offset, 10))
    assert len(world.calls) == 1


def test_a_reply_without_the_bytes_is_an_error():
    world = World(lambda _: Opened(info(), [Piece(50, 60, NoFile(), 0, sealed=False)], 60.0))
    with pytest.raises(InternalError):
        world.run(world.ops.read(URI, 0, 10))


def test_a_file_that_is_too_short_is_corrupt():
    world = NoBytes(lambda _: opened())
    with pytest.raises(CorruptData):
        world.run(world.ops.read(URI, 0, 10))


def test_ranges_beyond_the_end_ask_nothing_further():
    world = World(lambda _: opened())
    assert world.run(world.ops.read(URI, 100, 10)) == b""
    assert world.run(world.ops.read(URI, 1000, None)) == b""
    assert world.run(world.ops.read_into(URI, memoryview(bytearray(5)), 200)) == 0


def test_reuse_is_told_along_the_way():
    world = World(lambda _: opened())
    world.run(world.ops.read(URI, 0, 1))
    world.now += 2
    world.run(world.ops.read(URI, 0, 1))
    assert world.told == [Touch([URI])]
    assert len(world.calls) == 1


def test_without_files_bytes_are_fetched_in_portions():
    size = ASK_BYTES + 10

    def answer(call: Call) -> Fetched:
        assert isinstance(call, Fetch)
        return Fetched(info(size), bytes(call.length), call.length)

    world = World(answer, passes_files=False)
    assert len(world.run(world.ops.read(URI, 0, size))) == size
    assert world.calls == [Fetch(URI, "", 0, ASK_BYTES), Fetch(URI, "v1", ASK_BYTES, 10)]


def test_without_files_a_changed_object_is_read_anew():
    size = ASK_BYTES + 10
    answers = [
        Fetched(info(size), bytes(ASK_BYTES), ASK_BYTES),
        StaleObject("changed"),
        Fetched(info(4, "v2"), b"abcd", 4),
    ]
    world = World(in_turn(*answers), passes_files=False)
    assert world.run(world.ops.read(URI, 0, None)) == b"abcd"
    assert [type(call) for call in world.calls] == [Fetch] * 3


def test_an_empty_read_without_files_still_looks_for_the_object():
    world = World(in_turn(NotFound("no")), passes_files=False)
    with pytest.raises(NotFound):
        world.run(world.ops.read(URI, 0, 0))
    assert world.calls == [Stat(URI)]


def test_locate_wants_one_file():
    pieces = [Piece(0, 50, NoFile(), 0, sealed=True), Piece(50, 100, NoFile(), 0, sealed=True)]
    world = World(lambda _: Opened(info(), pieces, 60.0))
    found = world.run(world.ops.locate(URI, 10, 30))
    assert (found.start, found.stop) == (10, 40)
    with pytest.raises(InvalidRequest, match="several shards"):
        world.run(world.ops.locate(URI, 40, 20))


def test_locate_asks_again_for_what_came_in_parts():
    parts = [Piece(0, 50, NoFile(), 0, sealed=False), Piece(50, 100, NoFile(), 0, sealed=False)]
    joined = Opened(info(), [Piece(0, 100, NoFile(), 0, sealed=False)], 60.0)
    world = World(in_turn(Opened(info(), parts, 60.0), joined))
    found = world.run(world.ops.locate(URI, 0, None))
    assert (found.start, found.stop, found.file) == (0, 100, joined.pieces[0].file)
