"""The local socket: pods of this node ask here, and get open files.

SOCK_SEQPACKET, one protobuf message a packet (local.proto), descriptors beside the replies (SCM_RIGHTS).
This is the listening end; local_connection.py is one client, local_calls.py what can be asked.
"""

import asyncio
import logging
import os
import socket
import stat
import struct

from cache_server.local_calls import MESSAGE_BYTES_MAX, LocalCalls
from cache_server.local_connection import LocalConnection
from hotshard.core.errors import ConfigError, Overloaded, PermissionDenied

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 4096
ACCEPT_PAUSE_S = 0.1

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class LocalSocketServer:
    """The listening socket and its connections."""

    def __init__(
        self, path: str, calls: LocalCalls, *, mode: int, allowed_uids: frozenset[int] | None
    ) -> None:
        self._path = path
        self._calls = calls
        self._mode = mode
        self._allowed_uids = allowed_uids
        self._listener: socket.socket | None = None
        self._inode = 0
        self._connections: set[LocalConnection] = set()
        # One for all connections: a packet is parsed before the next one is read.
        self._buffer = bytearray(MESSAGE_BYTES_MAX)

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the path cannot be bound, or another server listens there.
        """
        try:
            listener, self._inode = await asyncio.to_thread(_listen, self._path, self._mode)
        except OSError as error:
            problem = f"local_socket.path: {self._path}: {error.strerror}"
            raise ConfigError([problem]) from error
        self._listener = listener
        self._resume()

    async def close(self, grace_s: float) -> None:
        """Stop accepting, tell the subscribers, let requests under way finish, disconnect."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.to_thread(_unlink, self._path, self._inode)
        listener.close()
        for connection in list(self._connections):
            connection.going_away()
        try:
            async with asyncio.timeout(grace_s):
                for connection in list(self._connections):
                    await connection.idle.wait()
        except TimeoutError:
            log.warning("local socket: requests still under way after %.0f s", grace_s)
        for connection in list(self._connections):
            connection.close("server stopped")

    def _accept(self) -> None:
        assert self._listener is not None, "the reader is removed on close"
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # EMFILE and the like: clients wait in the backlog
            log.warning("local socket: cannot accept: %s", error)
            self._pause(self._listener)
            return
        sock.setblocking(False)  # noqa: FBT003
        _, uid, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        connection = LocalConnection(sock, self._buffer, self._calls, self._forget)
        if self._allowed_uids is not None and uid not in self._allowed_uids:
            connection.refuse(PermissionDenied(f"uid {uid} is not in local_socket.allowed_uids"))
        elif len(self._connections) >= CONNECTIONS_MAX:
            connection.refuse(Overloaded(f"{CONNECTIONS_MAX} local connections are open"))
        else:
            self._connections.add(connection)
            self._calls.metrics.connections("local", len(self._connections))
            connection.start()

    def _pause(self, listener: socket.socket) -> None:
        """Accept nothing for a moment: the loop would call us again at once, and do little else."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        loop.call_later(ACCEPT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _forget(self, connection: LocalConnection) -> None:
        self._connections.discard(connection)
        self._calls.metrics.connections("local", len(self._connections))


def _listen(path: str, mode: int) -> tuple[socket.socket, int]:
    """A listening socket at `path` and the inode of its file; takes the place of a dead server's."""
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        _remove_dead(path)
        listener.bind(path)
        os.chmod(path, mode)
        listener.listen(256)
        return listener, os.stat(path).st_ino
    except OSError:
        listener.close()
        raise


def _remove_dead(path: str) -> None:
    """Remove a socket file that no process listens on; anything else is left for bind() to refuse."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except BlockingIOError:  # it is alive, with a full backlog
            return


def _unlink(path: str, inode: int) -> None:
    """Remove our socket file, unless a successor has already put its own there."""
    try:
        if os.stat(path).st_ino == inode:
            os.unlink(path)
    except FileNotFoundError:
        log.debug("%s was gone already", path)
