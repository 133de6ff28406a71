"""How patient a keeper is with its readers, and with a machine that can start none.

The clock is the test's, the readers are real processes.
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from hotshard.mount.config import MountOptions, Plan
from hotshard.mount.keeper import FIRST_BEAT_S, LOAD_TIMEOUT_S, Keeper
from hotshard.mount.starting import START_PERIOD_S
from hotshard.mount.state import State
from support.waiting import until

HANG_S = 2.0
PLAN = Plan("s3://b/", "/none", "0:1", 0, None, MountOptions(hang_timeout_s=HANG_S))


class Readers:
    """Starts processes that say nothing, as a reader that is still loading."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.refusals = 0

    def launch(self, _fds: list[int], _plan: str) -> tuple[int, int]:
        if self.refusals:
            self.refusals -= 1
            raise BlockingIOError("Resource temporarily unavailable")
        pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], {})
        self.pids.append(pid)
        return pid, os.pidfd_open(pid)


@pytest.fixture
def state() -> Iterator[State]:
    one = State.create()
    yield one
    one.map.close()
    os.close(one.fd)


@pytest.fixture
def readers() -> Readers:
    return Readers()


@pytest.fixture
def keeper(state: State, readers: Readers) -> Iterator[Keeper]:
    one = Keeper([], state, PLAN, -1, readers.launch)
    yield one
    one.kill()
    one.close(30.0)


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_a_reader_has_longer_for_its_first_sign_of_life(
    keeper: Keeper, readers: Readers, state: State
) -> None:
    start_s = time.monotonic()
    keeper.tick(start_s)
    keeper.tick(start_s + FIRST_BEAT_S - 1)  # a starved machine: still loading
    assert len(readers.pids) == 1
    beat_s = start_s + FIRST_BEAT_S
    state.beat(int(beat_s * 1e9))
    keeper.tick(beat_s + HANG_S - 0.5)
    assert len(readers.pids) == 1

    def replaced() -> bool:
        keeper.tick(beat_s + HANG_S + 0.5)
        return len(readers.pids) == 2

    until(replaced, "a hung reader to be replaced")
    assert not alive(readers.pids[0])


def test_one_that_never_gives_a_sign_of_life_is_replaced(keeper: Keeper, readers: Readers) -> None:
    start_s = time.monotonic()
    keeper.tick(start_s)

    def replaced() -> bool:
        keeper.tick(start_s + FIRST_BEAT_S + 1)
        return len(readers.pids) == 2

    until(replaced, "it to be replaced")
    assert not alive(readers.pids[0])


def test_a_successor_that_does_not_load_is_collected_and_the_old_one_stays(
    keeper: Keeper, readers: Readers
) -> None:
    start_s = time.monotonic()
    keeper.tick(start_s)
    keeper._signals.append(signal.SIGHUP)
    keeper.tick(start_s)
    old, new = readers.pids

    def collected() -> bool:
        keeper.tick(start_s + LOAD_TIMEOUT_S + 1)
        return not alive(new)

    until(collected, "the successor to be collected")
    keeper.tick(start_s + LOAD_TIMEOUT_S + 1)
    assert alive(old)
    assert len(readers.pids) == 2


def test_closing_it_collects_every_reader(keeper: Keeper, readers: Readers) -> None:
    now_s = time.monotonic()
    keeper.tick(now_s)
    keeper._signals.append(signal.SIGHUP)
    keeper.tick(now_s)
    keeper.kill()
    keeper.close(30.0)
    assert not any(map(alive, readers.pids))


def test_a_mount_outlives_a_time_in_which_no_process_can_be_started(
    keeper: Keeper, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    readers.refusals = 2
    start_s = time.monotonic()
    assert keeper.tick(start_s)
    assert keeper.tick(start_s + START_PERIOD_S / 2)
    assert readers.refusals == 1, "it waits before it tries again"
    assert keeper.tick(start_s + START_PERIOD_S)
    assert caplog.text.count("a reader cannot be started: Resource temporarily unavailable") == 2
    assert keeper.tick(start_s + 2 * START_PERIOD_S)
    assert len(readers.pids) == 1


def test_an_upgrade_that_cannot_be_started_leaves_the_reader_alone(
    keeper: Keeper, readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    start_s = time.monotonic()
    keeper.tick(start_s)
    readers.refusals = 1
    keeper._signals.append(signal.SIGHUP)
    assert keeper.tick(start_s + 1)
    assert "a reader cannot be started" in caplog.text
    assert alive(readers.pids[0])
    assert len(readers.pids) == 1
