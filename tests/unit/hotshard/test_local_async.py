"""The conversation of a loop: full sockets, notices, forks, descriptors of answers nobody waits for."""

import asyncio
import os
import socket
from collections.abc import Callable

import pytest

import hotshard
from hotshard.calls import Open, Stat
from hotshard.local_async import AsyncConversation, AsyncLocalTransport
from support.fake_server import FakeServer, FakeStore

URI = "s3://bucket/object"


async def ask(transport: AsyncLocalTransport, call: Stat | Open) -> object:
    line = transport.line()
    return await line.wait(await line.submit(call))


async def test_silence_ends(server: FakeServer, store: FakeStore):
    store.put(URI, b"hello")
    transport = AsyncLocalTransport(str(server.path), 0.05, 0.05)
    server.tricks.append("silence")
    with pytest.raises(hotshard.ServerUnavailable, match="does not answer"):
        await ask(transport, Stat(URI))
    await transport.hang_up()


async def test_a_server_that_refuses_us_says_why(server: FakeServer):
    server.unwelcome = hotshard.PermissionDenied("uid 7 is not allowed")
    for _ in range(20):  # it hangs up before or after we have said hello
        with pytest.raises(hotshard.PermissionDenied, match="uid 7"):
            async with hotshard.aio.connect(server.address):
                raise AssertionError


async def test_a_full_socket_is_waited_for():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    conversation = AsyncConversation("pair", ours, 5.0, 1.0)
    with theirs:
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(2000):
                _ = await conversation.submit(Stat(URI))
                sent += 1

        async with asyncio.TaskGroup() as group:
            sender = group.create_task(send())
            before = -1
            while before != sent:  # until it is stuck
                before = sent
                await asyncio.sleep(0)
            assert sent < 2000
            theirs.setblocking(False)
            received = 0
            while received < 2000:
                try:
                    theirs.recv(1 << 16)
                    received += 1
                except BlockingIOError:
                    await asyncio.sleep(0)
            assert not sender.cancelled()
        conversation.close(hotshard.ServerUnavailable("done"))


async def test_a_server_that_does_not_read_is_given_up():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    conversation = AsyncConversation("pair", ours, 0.05, 0.0)
    with theirs, pytest.raises(hotshard.ServerUnavailable, match="does not read"):
        while True:
            _ = await conversation.submit(Stat(URI))
    conversation.close(hotshard.ServerUnavailable("done"))


async def test_a_notice_ends_the_conversation_after_its_answers(
    server: FakeServer, store: FakeStore
):
    store.put(URI, b"hello")
    transport = AsyncLocalTransport(str(server.path), 5.0)
    server.tricks.append("leave")
    await ask(transport, Stat(URI))
    await ask(transport, Stat(URI))
    assert server.calls["hello"] == 2
    await transport.hang_up()


async def test_answers_nobody_waits_for_leak_nothing(
    server: FakeServer, store: FakeStore, open_fds: Callable[[], int]
):
    store.put(URI, b"hello")
    transport = AsyncLocalTransport(str(server.path), 5.0)
    await ask(transport, Stat(URI))
    before = open_fds()
    line = transport.line()
    for _ in range(50):
        await line.submit(Open(URI, "", 0, 5))
    await ask(transport, Stat(URI))
    assert open_fds() == before
    await transport.hang_up()


async def test_a_conversation_of_another_process_is_left_alone(
    server: FakeServer, store: FakeStore, monkeypatch: pytest.MonkeyPatch
):
    store.put(URI, b"hello")
    transport = AsyncLocalTransport(str(server.path), 5.0)
    await ask(transport, Stat(URI))
    first = await transport.conversation()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    await ask(transport, Stat(URI))
    assert await transport.conversation() is not first
    assert first.usable, "nothing was done to it"
    await transport.hang_up()
    first.close(hotshard.ServerUnavailable("done"))


async def test_a_request_too_large_for_a_packet(server: FakeServer):
    transport = AsyncLocalTransport(str(server.path), 5.0)
    with pytest.raises(hotshard.InvalidRequest, match="too large"):
        await ask(transport, Stat("s3://bucket/" + "x" * 500_000))
    await transport.hang_up()
