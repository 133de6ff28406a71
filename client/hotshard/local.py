"""Conversations with the server of this node over its Unix socket (SOCK_SEQPACKET, local.proto).

Blocking: each operation borrows a conversation from a small pool and gives it back when every answer has
come; one that is broken, or still owed an answer, is closed. So threads and signal handlers never share
one. A process that was forked leaves its parent's pool alone and begins its own.

Async: see `hotshard.local_async`.

Every descriptor that arrives goes into an OpenFile before anything else is looked at.
"""

import errno
import os
import platform
import socket
import struct
from array import array
from collections import deque
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hotshard import packets
from hotshard.calls import Call, Touch
from hotshard.core.errors import InternalError, InvalidRequest, PermissionDenied, ServerUnavailable
from hotshard.openfile import OpenFile
from hotshard.v1 import local_pb2 as pb

IDLE_MAX = 32  # conversations kept for reuse
GRACE_S = 2.0  # the server gives up first, so that its refusal says why
_FD_BYTES = array("i").itemsize
_ANCILLARY_BYTES = socket.CMSG_SPACE(packets.FILES_PER_PACKET * _FD_BYTES)
HELLO = 1  # number of the first call
Answer = tuple[pb.LocalReply, list[OpenFile]]


def client_name() -> str:
    """What we tell the server of ourselves, for its log."""
    try:
        ours = version("hotshard")
    except PackageNotFoundError:
        ours = "source"
    return f"hotshard/{ours} python/{platform.python_version()}"


def connected(path: str, timeout_s: float) -> socket.socket:
    """A connected socket whose sends and receives wait at most `timeout_s`.

    Raises:
        ServerUnavailable: nobody listens there.
        PermissionDenied: the socket's mode keeps us out.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        # Kernel timeouts instead of settimeout(), which would add a poll() to each call.
        limit = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        sock.connect(path)
    except PermissionError as error:
        sock.close()
        raise PermissionDenied(
            f"user {os.geteuid()} may not connect to the cache server at {path}; its directory and"
            " `local_socket.mode` say who may"
        ) from error
    except OSError as error:
        sock.close()
        raise lost(path, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def lost(path: str, error: OSError | None) -> ServerUnavailable:
    """What to raise when a connection breaks or nobody answers."""
    if isinstance(error, BlockingIOError):
        return ServerUnavailable(f"the cache server at {path} does not answer")
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return ServerUnavailable(f"no cache server listens at {path}: is it running?")
    reason = f": {error.strerror}" if error is not None and error.strerror else ""
    return ServerUnavailable(f"the cache server at {path} closed the connection{reason}")


def too_large(error: OSError) -> bool:
    """Whether a packet could not be sent because no socket buffer can hold it."""
    return error.errno == errno.EMSGSIZE


def receive_packet(sock: socket.socket, buffer: bytearray) -> tuple[int, list[OpenFile]]:
    """The size of the next packet, now in `buffer` (0: the server hung up), and its open files.

    Raises:
        OSError: as recvmsg does.
        InternalError: part of it is missing.
    """
    try:
        size, ancillary, flags, _ = _recvmsg(sock, buffer)
    except ConnectionResetError:  # overtakes what was sent before it, and is reported once
        size, ancillary, flags, _ = _recvmsg(sock, buffer)
    files: list[OpenFile] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) - len(data) % _FD_BYTES
            files += map(OpenFile, array("i", data[:whole]))
    if flags & socket.MSG_CTRUNC:
        failure = InternalError(
            "not all open files of a reply could be received; the limit of open files of this"
            " process is probably reached: raise it (ulimit -n) or lower files_max"
        )
        failure.errno = errno.EMFILE
        raise failure
    if flags & socket.MSG_TRUNC:
        raise InternalError(f"the server sent a packet of more than {len(buffer)} bytes")
    return size, files


def _recvmsg(
    sock: socket.socket, buffer: bytearray
) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
    return sock.recvmsg_into((buffer,), _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)


class Conversation:
    """One connection, used by one operation at a time."""

    def __init__(self, path: str, timeout_s: float, grace_s: float) -> None:
        self._path = path
        self._timeout_ms = int(timeout_s * 1000)
        self._last = HELLO
        self._early: dict[int, Answer] = {}
        self._buffer = bytearray(packets.PACKET_BYTES)
        self._view = memoryview(self._buffer)
        self.owed = 0
        """Answers that have not been taken yet."""
        self.leaving = False
        """The server is about to go; finish here, begin the next conversation elsewhere."""
        self._socket = connected(path, timeout_s + grace_s)
        with suppress(
            ServerUnavailable
        ):  # a server that refuses us hangs up; its reason can be read
            self._send(packets.hello(HELLO, client_name(), int.from_bytes(os.urandom(8))))
        reply, _ = self._await(HELLO)
        packets.check_hello(reply)

    def __del__(self) -> None:
        if hasattr(self, "_socket"):
            self._socket.close()

    def close(self) -> None:
        """Hang up; idempotent."""
        self._socket.close()

    def submit(self, call: Call) -> int:
        """Ask; the number is what to wait for."""
        packet = packets.encode(self._last + 1, call, self._timeout_ms)
        self._last += 1
        self.owed += 1
        self._send(packet)
        return self._last

    def wait(self, number: int, call: Call) -> Any:
        """The answer to the call that was sent under that number."""
        answer = self._early.pop(number, None)
        reply, files = self._await(number) if answer is None else answer
        self.owed -= 1
        return packets.result(reply, call, files)

    def tell(self, touch: Touch) -> None:
        """Send what has no answer, unless that would block."""
        self._last += 1
        packet = packets.encode(self._last, touch, 0)
        with suppress(OSError):  # a hint; whoever asks next finds out what is wrong
            self._socket.send(packet, socket.MSG_DONTWAIT)

    def _send(self, packet: bytes) -> None:
        try:
            self._socket.send(packet)
        except OSError as error:
            if too_large(error):
                raise InvalidRequest(f"{len(packet)} bytes is too large for a request") from error
            raise lost(self._path, error) from error

    def _await(self, number: int) -> Answer:
        while True:
            try:
                size, files = receive_packet(self._socket, self._buffer)
            except InternalError:
                raise
            except OSError as error:
                raise lost(self._path, error) from error
            if not size:
                raise lost(self._path, None)
            reply = packets.decode(bytes(self._view[:size]))
            if reply.id == number:
                return reply, files
            if reply.id:
                self._early[reply.id] = reply, files
            else:
                packets.check_notice(reply)
                self.leaving = True


class LocalTransport:
    """The conversations of one client."""

    passes_files = True

    def __init__(self, path: str, timeout_s: float, grace_s: float = GRACE_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._idle: deque[Conversation] = deque()
        self._pid = os.getpid()

    def line(self) -> "LocalLine":
        """What one operation talks through."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._idle = deque()
        return LocalLine(self)

    def check(self) -> None:
        """Find out at once whether a server is there."""
        self.give_back(self.begin())

    def begin(self) -> Conversation:
        """A new conversation."""
        return Conversation(self._path, self._timeout_s, self._grace_s)

    def idle(self) -> Conversation | None:
        """An idle conversation, if there is one."""
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def give_back(self, conversation: Conversation) -> None:
        """An operation is done with it. One that owes an answer cannot be used again."""
        if not (conversation.owed or conversation.leaving) and len(self._idle) < IDLE_MAX:
            self._idle.append(conversation)
        else:
            conversation.close()

    def hang_up(self) -> None:
        """Close what is idle: after a loss, or at the end."""
        while (conversation := self.idle()) is not None:
            conversation.close()


class LocalLine:
    """The conversation of one operation, begun when it is needed and again when it breaks."""

    __slots__ = ("_conversation", "_transport")

    def __init__(self, transport: LocalTransport) -> None:
        self._transport = transport
        self._conversation: Conversation | None = None

    def submit(self, call: Call) -> object:
        """Send a call. A conversation whose server has gone meanwhile is replaced at once."""
        conversation = self._conversation or self._transport.idle()
        if conversation is not None:
            self._conversation = conversation
            try:
                return conversation, conversation.submit(call), call
            except ServerUnavailable:
                self._drop()
        conversation = self._conversation = self._transport.begin()
        return conversation, conversation.submit(call), call

    def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        conversation, number, call = ticket
        try:
            return conversation.wait(number, call)
        except ServerUnavailable:
            if conversation is self._conversation:
                self._drop()
            raise

    def tell(self, touch: Touch) -> None:
        """Send what has no reply, if there is a conversation at hand."""
        self._conversation = self._conversation or self._transport.idle()
        if self._conversation is not None:
            self._conversation.tell(touch)

    def end(self) -> None:
        """The operation is over."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            self._transport.give_back(conversation)

    def _drop(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None
        self._transport.hang_up()  # the others lost their server too
