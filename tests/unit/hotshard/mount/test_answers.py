"""How a handler waits for a source: what is asked again, and for how long."""

import errno
import time
from collections.abc import Callable

import pytest

from hotshard.core.errors import (
    CorruptData,
    HotshardError,
    NotFound,
    OriginUnavailable,
    Overloaded,
    ServerUnavailable,
    StaleObject,
)
from hotshard.mount import answers
from hotshard.mount.answers import Refusal, Task, patiently
from hotshard.mount.metrics import Tally


def task(timeout_s: float) -> Task:
    return Task(memoryview(bytearray()), Tally(), time.monotonic() + timeout_s)


class Source:
    """Fails some times, then answers."""

    def __init__(self, error: HotshardError, times: int) -> None:
        self.error = error
        self.times = times
        self.asked = 0

    def __call__(self, _left_s: float) -> str:
        self.asked += 1
        if self.asked <= self.times:
            raise self.error
        return "answer"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "RETRY_S", 0.001)
    monkeypatch.setattr(answers, "ORIGIN_RETRY_S", 0.001)


@pytest.mark.parametrize(
    "error",
    [ServerUnavailable("away"), Overloaded("busy"), OriginUnavailable("no answer within 20.0 s")],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass_is_asked_again(error: HotshardError) -> None:
    """SEMANTICS 11: a read of a mount waits while the origin fails or the cache server is late."""
    if isinstance(error, Overloaded):
        error.retry_after_s = 0.0
    source = Source(error, times=3)
    assert patiently(task(60.0), source) == "answer"
    assert source.asked == 4


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("none"), errno.ENOENT),
        (StaleObject("changed"), errno.ESTALE),
        (CorruptData("wrong bytes"), errno.EIO),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_is_so_is_not_asked_again(error: HotshardError, code: int) -> None:
    source = Source(error, times=3)
    with pytest.raises(Refusal) as caught:
        patiently(task(60.0), source)
    assert caught.value.errno == code
    assert source.asked == 1


def refused_after_s(ask: Callable[[float], str], timeout_s: float) -> float:
    started_s = time.monotonic()
    with pytest.raises(Refusal) as caught:
        patiently(task(timeout_s), ask)
    assert caught.value.errno == errno.EIO
    return time.monotonic() - started_s


@pytest.mark.parametrize(
    "error", [ServerUnavailable("away"), OriginUnavailable("down")], ids=lambda e: type(e).__name__
)
def test_until_the_deadline_and_no_longer(error: HotshardError) -> None:
    source = Source(error, times=1 << 30)
    refused_after_s(source, 0.05)
    assert source.asked > 1


def test_a_listing_does_not_wait_its_whole_time_for_an_origin_that_is_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "ORIGIN_PATIENCE_S", 0.05)
    assert refused_after_s(Source(OriginUnavailable("down"), times=1 << 30), 600.0) < 300.0
