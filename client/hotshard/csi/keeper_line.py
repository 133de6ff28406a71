"""The driver's connection to the node's keeper; `keeper` describes the messages."""

import os
import select
import socket
from array import array

from hotshard.csi.keeper import DESCRIPTORS_MAX

TIMEOUT_S = 3.0
_MESSAGE_BYTES_MAX = 1 << 16
_ANCILLARY_BYTES_MAX = socket.CMSG_LEN(DESCRIPTORS_MAX * array("i").itemsize)


class NoKeeper(Exception):
    """It cannot be reached, or the connection broke; the message says where and why."""


class Refused(Exception):
    """It answered no; the message is its reason."""


class KeeperLine:
    """One connection, made when it is needed. Not thread-safe: its owner has a lock."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    @property
    def connected(self) -> bool:
        """Whether the keeper that last answered is still there."""
        if self._socket is not None and select.select([self._socket], [], [], 0)[0]:
            self.close()  # it says nothing unasked, so it hung up
        return self._socket is not None

    def connect(self) -> None:
        """Connect anew.

        Raises:
            NoKeeper: nobody is there.
        """
        self.close()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(TIMEOUT_S)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise NoKeeper(f"{self._path}: {error.strerror}") from error
        self._socket = sock

    def put(self, name: str, heartbeat_at: int, fds: list[int]) -> None:
        """Have descriptors held; the memory file comes last.

        Raises:
            NoKeeper: see there.
            Refused: it has no room.
        """
        self._ask(f"PUT {name} {heartbeat_at}", fds)

    def get(self, name: str) -> list[int]:
        """Copies of the descriptors of a mount.

        Raises:
            NoKeeper: see there.
            Refused: it does not hold them.
        """
        return self._ask(f"GET {name}")[1]

    def names(self) -> list[str]:
        """What it holds; see `put`."""
        return self._ask("LIST")[0].split(" ")[1:]

    def drop(self, name: str) -> None:
        """Have it let go of a mount; see `put`."""
        self._ask(f"DROP {name}")

    def close(self) -> None:
        """Hang up; idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, text: str, fds: list[int] | None = None) -> tuple[str, list[int]]:
        if self._socket is None:
            raise NoKeeper(f"{self._path}: not connected")
        try:
            if fds:
                socket.send_fds(self._socket, [text.encode()], fds)
            else:
                self._socket.send(text.encode())
            raw, ancillary, _, _ = self._socket.recvmsg(  # socket.recv_fds ignores the flag
                _MESSAGE_BYTES_MAX, _ANCILLARY_BYTES_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            self.close()
            raise NoKeeper(f"{self._path}: {error.strerror or error}") from error
        got = array("i")
        for _, _, body in ancillary:
            got.frombytes(body)
        if not raw:
            self.close()
            raise NoKeeper(f"{self._path}: the keeper hung up")
        answer = raw.decode()
        if not answer.startswith("OK"):
            for fd in got:
                os.close(fd)
            raise Refused(answer.removeprefix("NO "))
        return answer, list(got)
