"""The node's keeper: a small program, without privileges, that holds what the mounts of a node live on.

    python -I -S keeper.py SOCKET ORPHAN_TIMEOUT_S

The kernel ends a FUSE mount when nobody has its descriptors open any more. All processes of the driver's
pod die together, when it is upgraded or runs out of memory; so this program, in a pod that is replaced
rarely, holds a copy: for each mount the descriptors of /dev/fuse and the memory file of its state. It never
reads or writes a mount. It imports only the standard library, and nothing of hotshard.

Requests come over a Unix socket (SOCK_SEQPACKET, one message each, its answer before the next); descriptors
travel as SCM_RIGHTS, the memory file last:

    PUT name heartbeat_at + descriptors    OK; holds these, instead of earlier ones of that name
    GET name                               OK heartbeat_at + descriptors
    LIST                                   OK name name ...
    DROP name                              OK, also if it was not held
    anything that cannot be done           NO and why

The driver keeps its connection open and puts everything again when it breaks, so a new keeper learns from
the driver what a new driver learns from the keeper.

`heartbeat_at` says where in the memory file the reader that serves the mount writes the time several times
a second (nanoseconds of the monotonic clock). A mount with no sign of life for ORPHAN_TIMEOUT_S is let go:
if no driver holds it either, everything that waits for it fails with ENOTCONN instead of hanging for ever.
"""

import os
import resource
import select
import signal
import socket
import struct
import sys
import time

MOUNTS_MAX = 256
DESCRIPTORS_MAX = 17  # 16 threads of a mount and its memory file
LINES_MAX = 8
NAME_BYTES_MAX = 128
MESSAGE_BYTES_MAX = 4096
PERIOD_S = 1.0
_PEER = struct.Struct("3i")
_BEAT = struct.Struct("<Q")


class Held:
    """One mount: its descriptors, and when it last showed life."""

    def __init__(self, fds: list[int], heartbeat_at: int, now_s: float) -> None:
        self.fds = fds
        self.heartbeat_at = heartbeat_at
        self.well_s = now_s

    def dead(self) -> bool:
        """Whether the kernel has ended the connection: it is unmounted, or was aborted."""
        poll = select.poll()
        poll.register(self.fds[0], 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))

    def silent_s(self, now_s: float) -> float:
        """For how long nobody has served it."""
        raw = os.pread(self.fds[-1], _BEAT.size, self.heartbeat_at)
        if len(raw) == _BEAT.size:
            self.well_s = max(self.well_s, min(now_s, _BEAT.unpack(raw)[0] / 1e9))
        return now_s - self.well_s

    def close(self) -> None:
        """Let go of it."""
        for fd in self.fds:
            os.close(fd)


class Keeper:
    """Holds mounts for whoever may connect: processes of this very user."""

    def __init__(self, listener: socket.socket, orphan_timeout_s: float) -> None:
        self._listener = listener
        self._orphan_timeout_s = orphan_timeout_s
        self._held: dict[str, Held] = {}
        self._lines: dict[int, socket.socket] = {}

    def run(self) -> None:
        """Until the process is killed."""
        next_s = 0.0
        while True:
            waiting = [self._listener, *self._lines.values()]
            for ready in select.select(waiting, [], [], PERIOD_S)[0]:
                if ready is self._listener:
                    self._accept()
                elif not self._serve(ready):
                    del self._lines[ready.fileno()]
                    ready.close()
            now_s = time.monotonic()
            if now_s >= next_s:
                next_s = now_s + PERIOD_S
                self.tend(now_s)

    def tend(self, now_s: float) -> None:
        """Let go of what is over, or was without service for too long."""
        for name, held in list(self._held.items()):
            if held.dead():
                say(f"{name} is over")
            elif held.silent_s(now_s) > self._orphan_timeout_s:
                say(f"{name}: not served for {self._orphan_timeout_s:g} s, letting go of it")
            else:
                continue
            del self._held[name]
            held.close()

    def _accept(self) -> None:
        line, _ = self._listener.accept()
        uid = _PEER.unpack(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1]
        if uid != os.getuid() or len(self._lines) >= LINES_MAX:
            say(f"a connection of user {uid} is refused")
            line.close()
            return
        line.settimeout(2.0)
        self._lines[line.fileno()] = line

    def _serve(self, line: socket.socket) -> bool:
        """Answer one request; False: the other side is gone."""
        try:
            message, fds, flags, _ = socket.recv_fds(line, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
            if not message:
                return False
            whole = not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
            words = message.decode("ascii", "replace").split(" ")
            answer, given = self._answer(words if whole else ["?"], fds)
            if given:
                socket.send_fds(line, [answer.encode()], given)
            else:
                line.send(answer.encode())
        except OSError as error:
            say(f"a connection failed: {error}")
            return False
        return True

    def _answer(self, words: list[str], fds: list[int]) -> tuple[str, list[int]]:
        """The reply, with the descriptors that go with it; takes over or closes those that came."""
        match words:
            case ["PUT", name, at] if fds and at.isdecimal():
                return self._put(name, Held(fds, int(at), time.monotonic())), []
            case ["GET", name] if not fds and name in self._held:
                held = self._held[name]
                return f"OK {held.heartbeat_at}", held.fds
            case ["LIST"] if not fds:
                return " ".join(["OK", *self._held]), []
            case ["DROP", name] if not fds:
                held_now = self._held.pop(name, None)
                if held_now is not None:
                    held_now.close()
                    say(f"{name} is dropped")
                return "OK", []
        for fd in fds:
            os.close(fd)
        return "NO no such mount" if words[0] == "GET" else "NO no such request", []

    def _put(self, name: str, held: Held) -> str:
        before = self._held.pop(name, None)
        if before is not None:
            before.close()
        if not 0 < len(name) <= NAME_BYTES_MAX or len(self._held) >= MOUNTS_MAX:
            held.close()
            return f"NO no room: {len(self._held)} mounts of at most {MOUNTS_MAX} are held"
        self._held[name] = held
        say(f"{name} is held")
        return "OK"


def say(text: str) -> None:
    """Log a line."""
    sys.stderr.write(f"hotshard-keeper: {text}\n")
    sys.stderr.flush()


def listen(path: str) -> socket.socket:
    """The socket, under its name only when it can be connected to; an earlier keeper's is replaced."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    temporary = f"{path}.{os.getpid()}"
    if os.path.lexists(temporary):
        os.unlink(temporary)  # of a keeper with our pid, in a container before this one
    before = os.umask(0o177)
    try:
        listener.bind(temporary)
    finally:
        os.umask(before)
    listener.listen(LINES_MAX)
    os.rename(temporary, path)
    return listener


def main(argv: list[str]) -> int:
    """Entry point."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    try:
        listener = listen(argv[1])
    except OSError as error:
        say(f"{argv[1]}: {error.strerror}")
        return 1
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    say(f"listening at {argv[1]}")
    Keeper(listener, float(argv[2])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
