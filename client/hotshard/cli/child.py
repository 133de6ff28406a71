"""Child processes that never outlive us: stopped in order, and by the kernel if we die without warning."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

STOP_TIMEOUT_S = 30.0

# Asks the kernel for a signal when the parent dies, then becomes the program. Not a preexec_fn: those run
# between fork and exec of a process that has threads.
_LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]))  # PR_SET_PDEATHSIG; survives exec
if os.getppid() == int(sys.argv[1]):          # else the parent died before that
    os.execv(sys.argv[3], sys.argv[3:])
"""


def bound_to_us(command: Sequence[str], number: signal.Signals) -> list[str]:
    """The command line of a program that gets a signal when the thread that started it dies."""
    ours = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(number))]
    return [*ours, *command]


class Child:
    """A Python program of ours, in a session of its own: Ctrl-C is for the parent alone."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stderr: IO[bytes] | None = None,
        talks: bool = False,
    ) -> None:
        pipe = subprocess.PIPE if talks else subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: S603
            bound_to_us([sys.executable, *arguments], signal.SIGTERM),
            env=environment,
            stdin=pipe,
            stdout=pipe,
            stderr=stderr,
            start_new_session=True,
            text=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def say(self, line: str) -> None:
        """Send it a line."""
        if self._process.stdin is None:
            raise ValueError("a child that does not talk")
        with suppress(BrokenPipeError):  # it is gone: the missing answer will tell
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line; empty when it has ended."""
        if self._process.stdout is None:
            raise ValueError("a child that does not talk")
        return self._process.stdout.readline()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, then SIGKILL; idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
