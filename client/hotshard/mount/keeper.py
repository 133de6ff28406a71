"""The small process that owns a mount: it holds /dev/fuse and has a reader serve it.

    python -m hotshard.mount.keeper DEVICES STATE NOTIFY PLAN [READER_PID CONTROL]

It never reads or writes /dev/fuse. A reader that dies is replaced at once; one that gives no sign of life
for `hang_timeout_s` is killed and replaced; on SIGHUP a new one is started from the code as it is now on
disk, and takes over when the old one has finished. One reader at a time holds the state: a new one waits
for "go" until its predecessor's process has exited. If no reader is well for `orphan_timeout_s`, the
connection is aborted: what waits for the mount fails instead of hanging for ever.

Keeper and reader recover from each other: a reader whose keeper died starts this program with its own
pid, and is watched instead of started. SIGTERM and SIGINT unmount; while files are open, the mount is
detached and served on.

The CSI driver has no such process: it calls `tick` itself, for all mounts of its node, and `leave` when
another driver is to go on with them.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time

from hotshard.mount import device, logs
from hotshard.mount.config import Plan
from hotshard.mount.starting import START_PERIOD_S, Launch, line, spawn_reader
from hotshard.mount.state import State

log = logging.getLogger(__name__)

PERIOD_S = 0.25
QUICK_DEATH_S = 0.5
DELAY_MAX_S = 5.0
LOAD_TIMEOUT_S = 20.0
FIRST_BEAT_S = 60.0  # on a starved machine; killing a reader that loads makes the next one load
KILL_TIMEOUT_S = 1.0
EXIT_TIMEOUT_S = 15.0  # of the reader, when the mount has ended; nobody waits for it but the keeper
HOLDERS_SAID_MAX = 5
HEEDED = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)


class Child:
    """A reader process, started or taken over."""

    def __init__(
        self, pid: int, pidfd: int, control: socket.socket, now_s: float, *, serving: bool
    ) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.control = control
        self.control.settimeout(0)
        self.started_s = now_s
        self.serving = serving
        """It was told to go on with the state."""
        self.settled = False
        """It has loaded everything, and serves or waits for its predecessor to end."""

    def send(self, word: bytes) -> None:
        """Tell it something; if it is dead, its pidfd says so."""
        with contextlib.suppress(OSError):
            self.control.send(word)

    def read(self) -> bytes:
        """What it told us; empty: nothing, or it hung up."""
        try:
            return self.control.recv(64)
        except OSError:
            return b""

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def exited(self, wait_s: float = 0.0) -> bool:
        """Whether its process is gone, at the latest in `wait_s`; it is collected then."""
        if not select.select([self.pidfd], [], [], wait_s)[0]:
            return False
        with contextlib.suppress(ChildProcessError):  # one we took over is not ours to collect
            os.waitpid(self.pid, 0)
        return True

    def close(self) -> None:
        """Drop what we hold of it."""
        os.close(self.pidfd)
        self.control.close()


class Keeper:
    """Watches over the reader of one mount. `tick` is the whole policy; it never blocks."""

    def __init__(
        self,
        devices: list[int],
        state: State,
        plan: Plan,
        notify: int,
        launch: Launch = spawn_reader,
    ) -> None:
        self._launch = launch
        self._devices = devices
        self._state = state
        self._plan = plan
        self._notify = notify
        self._reader: Child | None = None
        self._successor: Child | None = None
        self._stop_sent_s: float | None = None
        self._well_s = time.monotonic()
        self._next_start_s = 0.0
        self._quick_deaths = 0
        self._signals: list[int] = []
        self._detached = False
        self._leaving = False

    def adopt(self, pid: int, control: socket.socket) -> None:
        """Watch a reader whose keeper died."""
        pidfd = os.pidfd_open(pid)
        self._reader = Child(pid, pidfd, control, time.monotonic(), serving=True)

    def run(self) -> None:
        """Until the mount is gone, or given up."""
        for number in HEEDED:
            signal.signal(number, lambda got, _frame: self._signals.append(got))
        wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)  # whoever mounts has them wait for us
        while self.tick(time.monotonic()):
            ready = select.select([wake, *self.watched()], [], [], PERIOD_S)[0]
            if wake in ready:
                os.read(wake, 4096)

    @property
    def settled(self) -> bool:
        """Whether the reader serves, or can at once when its predecessor has ended."""
        return self._reader is not None and self._reader.settled

    def watched(self) -> list[int]:
        """Descriptors that become readable when `tick` has something to do."""
        children = [child for child in (self._reader, self._successor) if child is not None]
        return [fd for child in children for fd in (child.pidfd, child.control.fileno())]

    def leave(self, now_s: float) -> None:
        """Have the reader finish, and start no other: `tick` is False once nobody serves."""
        self._leaving = True
        if self._successor is not None:
            self._successor.kill()
        if self._reader is not None:
            self._stop(self._reader, now_s)

    def kill(self) -> None:
        """End the readers at once."""
        for child in (self._reader, self._successor):
            if child is not None:
                child.kill()

    def close(self, patience_s: float = KILL_TIMEOUT_S) -> None:
        """End the readers and collect what they leave behind; waits twice for so long at most.

        One that has seen the mount end is about to exit; where nobody adopts what a program leaves behind,
        as in many containers, it would stay a zombie.
        """
        if self._successor is not None:
            self._successor.kill()
        for child in (self._reader, self._successor):
            if child is not None:
                if not child.exited(patience_s):
                    child.kill()
                    child.exited(patience_s)
                child.close()
        self._reader = self._successor = None

    def tick(self, now_s: float) -> bool:
        """Look at everything once and do what is due; False: there is nothing left to keep."""
        self._heed_signals(now_s)
        self._watch_reader(now_s)
        self._watch_successor(now_s)
        if self._state.ended:
            log.info("unmounted")
            return False
        if self._leaving:
            return self._reader is not None or self._successor is not None
        if self._reader is None and self._successor is None and now_s >= self._next_start_s:
            self._reader = self._start(now_s)
            if self._reader is not None:
                self._go(self._reader)
        if now_s - self._well_s > self._plan.options.orphan_timeout_s:
            self._give_up()
            return False
        return True

    def _watch_reader(self, now_s: float) -> None:
        reader = self._reader
        if reader is None:
            return
        if reader.exited():
            reader.close()
            self._reader = None
            if not self._state.ended and not self._leaving:
                self._mourn(reader, now_s)
            return
        word = reader.read()
        if word in {b"ready", b"standby"}:
            reader.settled = True
        if word == b"ready":
            self._announce()
        beat_s = self._state.heartbeat_ns / 1e9
        self._well_s = max(self._well_s, beat_s)
        patience_s = self._plan.options.hang_timeout_s
        if not beat_s:
            patience_s = max(patience_s, FIRST_BEAT_S)
        silent_s = now_s - max(beat_s, reader.started_s)
        overdue = self._stop_sent_s is not None and now_s > self._stop_sent_s
        if silent_s > patience_s or overdue:
            log.error("reader %d gives no sign of life; killing it", reader.pid)
            reader.kill()

    def _watch_successor(self, now_s: float) -> None:
        """A new reader for an upgrade: loads while the old one serves, then takes its place."""
        child = self._successor
        if child is None:
            return
        if child.exited():
            log.error("the new reader does not start; the old one stays")
            child.close()
            self._successor = None
            return
        if now_s - child.started_s > LOAD_TIMEOUT_S:
            child.kill()  # collected above when it is gone
            return
        if child.read() == b"loaded" and self._reader is not None:
            self._stop(self._reader, now_s)
        if self._reader is None:
            self._successor = None
            self._reader = child
            child.started_s = now_s
            self._go(child)

    def _stop(self, reader: Child, now_s: float) -> None:
        self._stop_sent_s = now_s + self._plan.options.drain_timeout_s + 2.0
        reader.send(b"stop")

    def _mourn(self, reader: Child, now_s: float) -> None:
        lived_s = now_s - reader.started_s
        self._quick_deaths = self._quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
        if self._stop_sent_s is None:
            log.error("reader %d died after %.1f s", reader.pid, lived_s)
        self._stop_sent_s = None
        delay_s = 0.05 * 2 ** (self._quick_deaths - 3) if self._quick_deaths > 3 else 0.0
        self._next_start_s = now_s + min(delay_s, DELAY_MAX_S)
        self._state.add_restart()

    def _start(self, now_s: float) -> Child | None:
        """A reader; None: no process or descriptor is to be had now, which a mount has to outlive."""
        try:
            with line() as (ours, theirs):
                fds = [*self._devices, self._state.fd, theirs.fileno()]
                pid, pidfd = self._launch(fds, self._plan.to_json())
        except OSError as error:
            log.error("a reader cannot be started: %s", error)  # noqa: TRY400
            self._next_start_s = now_s + START_PERIOD_S
            return None
        log.info("reader %d started", pid)
        return Child(pid, pidfd, ours, now_s, serving=False)

    def _go(self, child: Child) -> None:
        self._state.beat(0)
        child.serving = True
        child.send(b"go")

    def _heed_signals(self, now_s: float) -> None:
        signals, self._signals = self._signals, []
        for number in signals:
            if number == signal.SIGHUP:
                if self._successor is None:
                    self._successor = self._start(now_s)
            elif self._detached:
                self._give_up()
            else:
                self._unmount()

    def _unmount(self) -> None:
        try:
            device.unmount(self._plan.target)
        except OSError as error:
            found = device.holders(self._plan.device)[:HOLDERS_SAID_MAX]
            who = ", ".join(f"{command} {pid}" for pid, command, _ in found)
            log.warning(
                "%s: %s; detached, and served until the last file is closed (held by %s)",
                self._plan.target, error.strerror, who or "nobody who is to be seen",
            )  # fmt: skip
            with contextlib.suppress(OSError):
                device.unmount(self._plan.target, lazy=True)
            self._detached = True

    def _announce(self) -> None:
        """The mount can be used."""
        if self._notify < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._notify, b"ready\n")
        os.close(self._notify)
        self._notify = -1
        notify_systemd("READY=1")

    def _give_up(self) -> None:
        """Let everything that waits for the mount fail."""
        log.error("giving up: aborting the connection of %s", self._plan.target)
        self.kill()
        # The number of a file system that is gone may be another's by now.
        gone = bool(self._devices) and device.ended(self._devices[0])
        if gone or not device.abort(self._plan.device):
            # Without /sys: the connection dies with its last descriptor, so with us.
            while self._devices:
                os.close(self._devices.pop())
        self._state.end()


def notify_systemd(text: str) -> None:
    """Tell systemd, if it waits to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.send(text.encode())


def main(argv: list[str]) -> int:
    """Entry point."""
    logs.set_up("hotshard-keeper")
    devices = [int(text) for text in argv[1].split(",")]
    keeper = Keeper(devices, State(int(argv[2])), Plan.from_json(argv[4]), int(argv[3]))
    if len(argv) > 5:
        keeper.adopt(int(argv[5]), socket.socket(fileno=int(argv[6])))
    keeper.run()
    keeper.close(EXIT_TIMEOUT_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
