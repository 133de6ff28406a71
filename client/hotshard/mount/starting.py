"""How a keeper starts readers, and a reader a keeper: programs with some of our descriptors."""

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from hotshard.mount.config import Plan
from hotshard.mount.state import State

START_PERIOD_S = 1.0
"""After how long it is tried again, when there is no process or descriptor to be had."""

Launch = Callable[[list[int], str], tuple[int, int]]
"""Starts a reader, given its descriptors (devices, state, control) and its plan; its pid and pidfd."""


@contextlib.contextmanager
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection to a program that is started inside; its end is closed then, ours if that fails."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        try:
            yield ours, theirs
        except OSError:
            ours.close()
            raise


def _numbers(devices: list[int]) -> str:
    return ",".join(map(str, devices))


def _spawn(module: str, fds: list[int], arguments: list[str]) -> int:
    """Start one of our programs with some of our descriptors."""
    for fd in fds:
        os.set_inheritable(fd, True)  # noqa: FBT003
    try:
        command = [sys.executable, "-m", f"hotshard.mount.{module}", *arguments]
        # A reader ignores SIGCHLD; a keeper must not.
        return os.posix_spawn(sys.executable, command, os.environ, setsigdef=[signal.SIGCHLD])
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)  # noqa: FBT003


def spawn_reader(fds: list[int], plan: str) -> tuple[int, int]:
    """A reader from the code that is on disk now; see Launch."""
    *devices, state, control = fds
    pid = _spawn("reader", fds, [_numbers(devices), str(state), str(control), plan])
    return pid, os.pidfd_open(pid)


def start_keeper(devices: list[int], state: State, plan: Plan) -> socket.socket:
    """One for the calling reader; gives the reader's end of the connection to it.

    Raises:
        OSError: there is no process or descriptor to be had now.
    """
    with line() as (ours, theirs):
        _spawn(
            "keeper",
            [*devices, state.fd, theirs.fileno()],
            [
                _numbers(devices),
                str(state.fd),
                "-1",
                plan.to_json(),
                str(os.getpid()),
                str(theirs.fileno()),
            ],
        )
    return ours
