"""The local socket on an event loop: one conversation for all tasks, answers matched by number.

A task that is cancelled leaves its number behind; when the answer comes, its open files are closed. A
loop of its own, or a forked child, gets a conversation of its own and never touches the old one: its
socket may be watched by an epoll that is shared with the parent.
"""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

from hotshard import packets
from hotshard.calls import Call, Touch
from hotshard.core.errors import HotshardError, InvalidRequest, ServerUnavailable
from hotshard.local import (
    GRACE_S,
    HELLO,
    Answer,
    client_name,
    connected,
    lost,
    receive_packet,
    too_large,
)

PACKETS_PER_WAKE = 16  # then other callbacks of the loop have their turn


class AsyncConversation:
    """One connection on one loop."""

    def __init__(self, path: str, sock: socket.socket, timeout_s: float, grace_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(packets.PACKET_BYTES)
        self._view = memoryview(self._buffer)
        self._last = HELLO
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._sending = asyncio.Lock()
        self.usable = True
        """New calls may be sent."""
        sock.setblocking(False)  # noqa: FBT003
        self._loop.add_reader(sock.fileno(), self._readable)

    def __del__(self) -> None:
        self._socket.close()

    async def greet(self) -> None:
        """The first exchange."""
        answer = self._answers[HELLO] = self._loop.create_future()
        with suppress(
            ServerUnavailable
        ):  # a server that refuses us hangs up; its reason can be read
            await self._send(packets.hello(HELLO, client_name(), int.from_bytes(os.urandom(8))))
        reply, _ = await self._wait(answer)
        packets.check_hello(reply)

    async def submit(self, call: Call) -> asyncio.Future[Answer]:
        """Ask; the future is the answer."""
        self._last += 1
        number = self._last
        packet = packets.encode(number, call, int(self._timeout_s * 1000))
        answer = self._answers[number] = self._loop.create_future()
        try:
            await self._send(packet)
        except BaseException:
            self._answers.pop(number, None)
            raise
        return answer

    async def wait(self, answer: asyncio.Future[Answer], call: Call) -> Any:
        """The value that answers the call."""
        reply, files = await self._wait(answer)
        return packets.result(reply, call, files)

    def tell(self, touch: Touch) -> None:
        """Send what has no answer, unless that would block."""
        self._last += 1
        with suppress(OSError):
            self._socket.send(packets.encode(self._last, touch, 0))

    def close(self, reason: HotshardError) -> None:
        """Hang up; whoever waits learns why. Idempotent."""
        self.usable = False
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(reason)
                answer.exception()  # seen: its task may be gone
        self._answers.clear()

    async def _wait(self, answer: asyncio.Future[Answer]) -> Answer:
        try:
            async with asyncio.timeout(self._timeout_s + self._grace_s):
                return await answer
        except TimeoutError as error:
            raise ServerUnavailable(f"the cache server at {self._path} does not answer") from error

    async def _send(self, packet: bytes) -> None:
        async with self._sending:  # packets of several tasks wait their turn
            while True:
                try:
                    self._socket.send(packet)
                except BlockingIOError:
                    await self._writable()
                except OSError as error:
                    if too_large(error):
                        raise InvalidRequest(
                            f"{len(packet)} bytes is too large for a request"
                        ) from error
                    self.usable = False  # the reader finds what was said last, and closes
                    raise lost(self._path, error) from error
                else:
                    return

    async def _writable(self) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._socket.fileno()
        self._loop.add_writer(fd, _set, ready)
        try:
            async with asyncio.timeout(self._timeout_s):
                await ready
        except TimeoutError as error:
            raise ServerUnavailable(f"the cache server at {self._path} does not read") from error
        finally:
            if self._socket.fileno() == fd:
                self._loop.remove_writer(fd)

    def _readable(self) -> None:
        for _ in range(PACKETS_PER_WAKE):
            try:
                size, files = receive_packet(self._socket, self._buffer)
                if not size:
                    raise lost(self._path, None)
                reply = packets.decode(bytes(self._view[:size]))
                if not reply.id:
                    packets.check_notice(reply)
                    self.usable = False
            except BlockingIOError:
                return
            except HotshardError as error:
                self.close(error)
                return
            except OSError as error:
                self.close(lost(self._path, error))
                return
            answer = self._answers.pop(reply.id, None)
            if answer is not None and not answer.done():
                answer.set_result((reply, files))
            if not self.usable and not self._answers:
                self.close(lost(self._path, None))
                return


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class AsyncLocalTransport:
    """The conversation of one client, on whatever loop it is used."""

    passes_files = True

    def __init__(self, path: str, timeout_s: float, grace_s: float = GRACE_S) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._grace_s = grace_s
        self._home: tuple[int, object] | None = None
        self._connecting = asyncio.Lock()
        self._conversation: AsyncConversation | None = None

    async def check(self) -> None:
        """Find out at once whether a server is there."""
        await self.conversation()

    def line(self) -> "AsyncLocalLine":
        """What one operation talks through."""
        return AsyncLocalLine(self)

    async def conversation(self) -> AsyncConversation:
        """The conversation of this loop, begun if need be."""
        found = self.current()
        if found is not None:
            return found
        async with self._connecting:
            found = self.current()
            if found is not None:  # another task was quicker
                return found
            sock = await asyncio.to_thread(connected, self._path, self._timeout_s + self._grace_s)
            conversation = AsyncConversation(self._path, sock, self._timeout_s, self._grace_s)
            try:
                await conversation.greet()
            except BaseException:
                conversation.close(lost(self._path, None))
                raise
            self._conversation = conversation
            return conversation

    def current(self) -> AsyncConversation | None:
        """The conversation of this loop, if there is one."""
        home = (os.getpid(), asyncio.get_running_loop())
        if self._home != home:
            self._home = home
            self._connecting = asyncio.Lock()
            self._conversation = None
        found = self._conversation
        return found if found is not None and found.usable else None

    async def hang_up(self) -> None:
        """Close the conversation of this loop."""
        found = self.current()
        self._conversation = None
        if found is not None:
            found.close(InvalidRequest("this client is closed"))


class AsyncLocalLine:
    """What one operation talks through."""

    __slots__ = ("_transport",)

    def __init__(self, transport: AsyncLocalTransport) -> None:
        self._transport = transport

    async def submit(self, call: Call) -> object:
        """Send a call. A conversation whose server has gone meanwhile is replaced at once."""
        found = self._transport.current()
        if found is not None:
            with suppress(ServerUnavailable):
                return found, await found.submit(call), call
        conversation = await self._transport.conversation()
        return conversation, await conversation.submit(call), call

    async def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        conversation, answer, call = ticket
        return await conversation.wait(answer, call)

    def tell(self, touch: Touch) -> None:
        """Send what has no reply, if there is a conversation."""
        found = self._transport.current()
        if found is not None:
            found.tell(touch)

    def end(self) -> None:
        """Nothing to give back: answers nobody waits for are dropped when they come."""
