"""Readers that are forked: what they have, what they do not have, and who notices their end."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from hotshard.mount import reader
from hotshard.mount.config import MountOptions, Plan
from hotshard.mount.nursery import Nursery, keep_only
from hotshard.mount.state import State
from support.waiting import LIMIT_S, until

PLAN = Plan("s3://b/", "/mnt", "0:1", 0, None, MountOptions(), supervised=True).to_json()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    one = Nursery()
    yield one
    one.close()


class Launched:
    """A reader that has loaded everything and waits to be told to go."""

    def __init__(self, nursery: Nursery, device: int) -> None:
        self.state = State.create()
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(LIMIT_S)
        with theirs:
            self.pid, self.pidfd = nursery.launch([device, self.state.fd, theirs.fileno()], PLAN)
        assert self.control.recv(64) == reader.LOADED

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def ended(self) -> bool:
        return bool(select.select([self.pidfd], [], [], 10.0)[0])

    def close(self) -> None:
        self.control.close()
        assert self.ended()
        os.close(self.pidfd)
        self.state.map.close()
        os.close(self.state.fd)


@pytest.fixture
def device() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def test_each_reader_has_its_own_descriptors_only(nursery, device):
    first = Launched(nursery, device)
    second = Launched(nursery, device)
    assert first.pid != second.pid
    # The standard ones, device, state, its map, control.
    assert second.descriptors() == first.descriptors() == 3 + 4
    first.close()  # hung up: this one ends, the other does not
    assert not select.select([second.pidfd], [], [], 0)[0]
    second.close()


def test_a_reader_that_was_killed_is_noticed_and_leaves_no_zombie(nursery, device):
    one = Launched(nursery, device)
    signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
    assert one.ended()
    until(lambda: not os.path.exists(f"/proc/{one.pid}"))
    one.close()


def test_a_nursery_that_was_killed_is_replaced_and_its_readers_live_on(nursery, device):
    before = Launched(nursery, device)
    os.kill(nursery.pid, signal.SIGKILL)
    after = Launched(nursery, device)
    assert not select.select([before.pidfd], [], [], 0)[0]
    before.close()
    after.close()


def test_a_nursery_that_was_killed_is_collected_and_replaced_before_somebody_needs_one(nursery):
    before = nursery.pid
    nursery.tend()
    assert nursery.pid == before
    os.kill(before, signal.SIGKILL)

    def replaced() -> bool:
        nursery.tend()
        return bool(nursery.pid != before)

    until(replaced, "another nursery")
    assert not os.path.exists(f"/proc/{before}")


def test_where_nothing_can_be_started_it_is_tried_again(nursery, device, monkeypatch):
    before = nursery.pid
    spawn, refusals = os.posix_spawn, iter(range(2))

    def refused_at_first(*args, **options):
        if next(refusals, None) is not None:
            raise BlockingIOError("Resource temporarily unavailable")
        return spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", refused_at_first)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    with pytest.raises(BlockingIOError):
        nursery.launch([device], PLAN)
    nursery.tend()
    assert nursery.pid == 0
    nursery.tend()
    Launched(nursery, device).close()


def test_a_reader_that_cannot_begin_says_so_and_ends(capfd, device):
    state = os.memfd_create("other")
    os.ftruncate(state, 16 << 20)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, contextlib.closing(Nursery()) as nursery:
        _, pidfd = nursery.launch([device, state, theirs.fileno()], PLAN)
        assert select.select([pidfd], [], [], 10.0)[0]
    assert "has format 0" in capfd.readouterr().err
    os.close(pidfd)
    os.close(state)


def test_the_nursery_ends_with_who_wanted_it():
    one = Nursery()
    pidfd = os.pidfd_open(one.pid)
    one._line.close()
    assert select.select([pidfd], [], [], 30.0)[0]
    assert os.waitpid(one.pid, 0)[1] == 0
    os.close(pidfd)


def test_keeping_only_some_descriptors():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        keep_only([write])
        left = sorted(int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2)
        # The last one is that of the listing itself, gone by now.
        os._exit(0 if write in left and read not in left[:-1] and len(left) <= 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(read)
    os.close(write)
