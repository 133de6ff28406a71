import time

import pytest

from benchmarks import sabotage
from benchmarks.sabotage import Sabotage


def read_into(uri, buffer, offset):
    count = len(buffer) if offset < 100 else 0
    buffer[:count] = bytes(count)
    return count


def read_many(uris):
    return [b"abc" for _ in uris] + [b""]


def test_none_adds_nothing_to_a_timed_loop():
    assert Sabotage.NONE.wrap_into(read_into) is read_into
    assert Sabotage.NONE.wrap_bytes(read_many) is read_many
    assert Sabotage.NONE.wrap(len) is len


@pytest.mark.parametrize("kind", [bytearray, lambda n: memoryview(bytearray(n))])
def test_flip_spoils_one_byte_of_each_read_into(kind):
    buffer = kind(8)
    assert Sabotage.FLIP.wrap_into(read_into)("u", buffer, 0) == 8
    assert bytes(buffer) == b"\xff" + bytes(7)
    assert Sabotage.FLIP.wrap_into(read_into)("u", buffer, 100) == 0


def test_flip_spoils_one_byte_of_each_body():
    assert Sabotage.FLIP.wrap_bytes(read_many)(["u"]) == [b"\x9ebc", b""]


def test_slow_is_slow():
    begun = time.perf_counter()
    Sabotage.SLOW.wrap_into(read_into)("u", bytearray(8), 0)
    assert time.perf_counter() - begun >= 0.001
    begun = time.perf_counter()
    Sabotage.SLOW.wrap_bytes(read_many)(["u"])
    assert time.perf_counter() - begun >= 0.5


def test_stall_is_slow_once(monkeypatch):
    slept_s: list[float] = []
    monkeypatch.setattr(time, "sleep", slept_s.append)
    read = Sabotage.STALL.wrap_into(read_into)
    for _ in range(2):
        assert read("u", bytearray(8), 0) == 8
        assert slept_s == [sabotage._STALL_S]
