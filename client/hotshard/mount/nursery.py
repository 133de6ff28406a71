"""A process that has loaded what a reader needs, and becomes one, by fork, each time it is asked.

    python -m hotshard.mount.nursery LINE

A reader takes 0.17 s of processor time to load, its fork a few milliseconds and little memory of its own.
That counts where one program serves many mounts and must have all of them served again soon: the CSI
driver. A mount by itself starts its readers as programs (`starting.spawn_reader`), as an upgrade wants the
code that is on disk then.

A request is a reader's plan with its descriptors: devices, state, control. The answer is its pid with its
pidfd. The nursery has one thread, so that forking it is safe; it ends when the other side hangs up.
"""

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 1 << 16
DESCRIPTORS_MAX = 18  # 16 threads of a mount, its memory file, the socket to its keeper
START_TIMEOUT_S = 30.0


class Nursery:
    """The side of who wants readers: has a nursery started, and another when that has died. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.pid = 0
        """0: there is none, because it could not be started."""
        self._start()

    def launch(self, fds: list[int], plan: str) -> tuple[int, int]:
        """See `starting.Launch`. Waits until the nursery has loaded.

        Raises:
            OSError: a reader cannot be started.
        """
        with self._lock:
            try:
                return self._ask(fds, plan)
            except OSError:
                self.close()
                self._start()
                return self._ask(fds, plan)

    def tend(self) -> None:
        """Start another if it has died, before somebody waits for one; to be called now and then."""
        with self._lock:
            if self.pid:
                if not os.waitpid(self.pid, os.WNOHANG)[0]:
                    return
                log.error("the nursery of readers has died; starting another")
                self.pid = 0
            self._line.close()
            try:
                self._start()
            except OSError as error:
                log.error("it cannot be started: %s", error)  # noqa: TRY400

    def close(self) -> None:
        """End it; its readers live on."""
        self._line.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def _start(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.settimeout(START_TIMEOUT_S)
        with theirs:
            theirs.set_inheritable(True)
            command = [sys.executable, "-m", "hotshard.mount.nursery", str(theirs.fileno())]
            self.pid = os.posix_spawn(sys.executable, command, os.environ)

    def _ask(self, fds: list[int], plan: str) -> tuple[int, int]:
        socket.send_fds(self._line, [plan.encode()], fds)
        raw, got, _, _ = socket.recv_fds(self._line, 64, 1)
        if not raw or not got:
            raise ConnectionError("the nursery of readers has ended")
        os.set_inheritable(got[0], False)  # noqa: FBT003
        return int(raw), got[0]


def tend(line: socket.socket, become: Callable[[list[int], str], NoReturn]) -> None:
    """Fork a reader for each request; returns when the other side has hung up."""
    while True:
        plan, fds, _, _ = socket.recv_fds(line, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
        if not plan:
            return
        # Not collected before it has a pidfd, however soon it ends.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if pid == 0:
            become(fds, plan.decode())
        pidfd = os.pidfd_open(pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        for fd in fds:
            os.close(fd)
        socket.send_fds(line, [str(pid).encode()], [pidfd])
        os.close(pidfd)


def keep_only(fds: list[int]) -> None:
    """Close every descriptor but these and the standard ones."""
    low = 3
    for fd in sorted(fds):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


def _collect(*_: object) -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def main(argv: list[str]) -> int:
    """Entry point."""
    from hotshard.mount.config import Plan
    from hotshard.mount.late import preload
    from hotshard.mount.reader import end, serve

    def become(fds: list[int], plan: str) -> NoReturn:
        code = 1
        try:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            keep_only(fds)
            *devices, state, control = fds
            code = serve(devices, state, socket.socket(fileno=control), Plan.from_json(plan))
        except Exception:
            log.exception("the reader failed")
        end(code)

    preload()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _collect)
    gc.freeze()  # what is loaded is never garbage; looking at it would copy its pages
    tend(socket.socket(fileno=int(argv[1])), become)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
