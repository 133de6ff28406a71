"""A real mount for a test, with a guard that aborts it when the test takes too long."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path
from urllib.request import urlopen

from hotshard.cli.ports import free_ports
from hotshard.mount import device
from hotshard.mount.command import mount
from hotshard.mount.config import parse_options
from support.waiting import until

FULL = os.environ.get("HOTSHARD_TEST_SCALE") == "1"
LIFETIME_S = (
    550.0 if FULL else 110.0
)  # below pytest's own limit, so that nothing hangs in the kernel


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def running(program: bytes, pids: Iterable[int]) -> int:
    """Which of these processes runs a program; 0: none does."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if program in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


class Mounted:
    """A local directory, mounted."""

    def __init__(self, source: Path, target: Path, options: dict[str, object]) -> None:
        self.path = target
        self.log = target.with_suffix(".log")
        self._metrics_port = free_ports(1)[0]
        words = {"log_file": str(self.log), "metrics_port": str(self._metrics_port)}
        words |= {name: str(value) for name, value in options.items()}
        uri = words.pop("uri", "file:///data/")
        directory = None if words.pop("server", "") else str(source)
        self.keeper = mount(uri, str(target), parse_options(words), directory=directory)
        point = device.mounted_at(str(target))
        assert point is not None
        self.device = point.device
        self._guard = threading.Timer(LIFETIME_S, self.abort)
        self._guard.daemon = True
        self._guard.start()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def abort(self) -> None:
        """Let everything that waits for the mount fail."""
        point = device.mounted_at(str(self.path))
        if (
            point is not None and point.device == self.device
        ):  # else it may be somebody else's by now
            device.abort(self.device)

    def reader(self) -> int:
        """The pid of the reader that serves now."""
        return until(lambda: running(b"hotshard.mount.reader", self.children()), "a reader", 10)

    def children(self) -> list[int]:
        """Processes the keeper has started."""
        return children(self.keeper)

    def kill_reader(self) -> int:
        """kill -9; gives its pid."""
        pid = self.reader()
        os.kill(pid, signal.SIGKILL)
        return pid

    def metrics(self) -> dict[str, float]:
        """The metrics now."""
        with urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as answer:
            lines = [x for x in answer.read().decode().splitlines() if not x.startswith("#")]
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines)}

    def unmount(self) -> None:
        """As umount does."""
        device.unmount(str(self.path))

    def close(self) -> None:
        """Unmount, however; end the processes."""
        self._guard.cancel()
        pids = [self.keeper, *self.children()]
        try:
            self.unmount()
        except OSError:
            self.abort()
            with contextlib.suppress(OSError):
                device.unmount(str(self.path), lazy=True)
        for pid in pids:
            _await_end(pid)


def _await_end(pid: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    if not select.select([pidfd], [], [], 10.0)[0]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.close(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
