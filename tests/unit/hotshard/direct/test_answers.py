"""What a client is told by the origin itself: memory files that last as long as their reader."""

import os
from pathlib import Path

import pytest

from hotshard.calls import Fetch, Open, Opened, OpenMany, StatMany, Status
from hotshard.core.errors import NotFound, StaleObject
from hotshard.direct.answers import AHEAD_BYTES, ASK_BYTES, answers
from hotshard.direct.origin import NotHere


@pytest.fixture
def big(tmp_path: Path) -> str:
    (tmp_path / "big").write_bytes(bytes(range(256)) * (40 << 12))  # 40 MiB
    return f"file://{tmp_path}/big"


def opened(reply: object) -> Opened:
    assert isinstance(reply, Opened)
    return reply


def test_an_open_holds_what_was_asked_for_and_a_little_more(big: str):
    reply = opened(answers(5.0).answer(Open(big, "", 5, 10)))
    (piece,) = reply.pieces
    assert (piece.start, piece.stop) == (5, 5 + AHEAD_BYTES)
    assert os.pread(piece.file.fd, 3, 5 + piece.delta) == b"\x05\x06\x07"
    assert reply.lease_s == 0
    assert not piece.sealed
    assert opened(answers(5.0).answer(Open(big, "", 0, 0))).pieces == []
    assert opened(answers(5.0).answer(Open(big, "", 40 << 20, 10))).pieces == []


def test_a_memory_file_ends_with_its_reader(big: str):
    before = len(os.listdir("/proc/self/fd"))
    reply = opened(answers(5.0).answer(Open(big, "", 0, 1)))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del reply
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_answer_holds_a_bounded_number_of_bytes(big: str):
    direct = answers(5.0)
    replies = direct.answer(OpenMany([Open(big, "", 0, 40 << 20)] * 4))
    held = [sum(p.stop - p.start for p in opened(reply).pieces) for reply in replies]
    assert held == [40 << 20, 24 << 20, 0, 0]
    assert sum(held) == ASK_BYTES


def test_refusals_stand_in_their_places(big: str):
    direct = answers(5.0)
    replies = direct.answer(StatMany([big, big + "-not"]))
    assert replies[0].size == 40 << 20
    assert isinstance(replies[1], NotFound)
    with pytest.raises(StaleObject):
        direct.answer(Open(big, "another", 0, 1))
    with pytest.raises(StaleObject):
        direct.answer(Open(big + "-not", "v", 0, 1))


def test_a_fetch_goes_into_the_callers_buffer(big: str):
    view = memoryview(bytearray(8))
    fetched = answers(5.0).answer(Fetch(big, "", (40 << 20) - 4, 8, view))
    assert (fetched.count, view.tobytes()) == (4, b"\xfc\xfd\xfe\xff" + bytes(4))


def test_what_only_a_server_does(big: str):
    with pytest.raises(NotHere, match="Status needs a cache server"):
        answers(5.0).answer(Status())
