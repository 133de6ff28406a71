"""The way to a server over gRPC, on an event loop; what the blocking one shares with it is in remote.py."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from hotshard import calls
from hotshard.bulkports import Attempt, BulkPorts, NoWay
from hotshard.core.errors import ServerUnavailable
from hotshard.options import Options
from hotshard.remote import CHANNEL_OPTIONS, CHECK_S, Calls, Ticket, credentials, log, status_error
from hotshard.v1 import cache_pb2_grpc


class AsyncRemoteTransport:
    """The channel of one client on one event loop."""

    passes_files = False

    def __init__(self, target: str, options: Options) -> None:
        self._target = target
        self._options = options
        self._bulk = BulkPorts(options)
        self._home: tuple[int, object] | None = None
        self._channel: grpc.aio.Channel | None = None

    async def check(self) -> None:
        """Find out at once whether a server is there."""
        try:
            async with asyncio.timeout(min(CHECK_S, self._options.timeout_s)):
                await self._open_channel().channel_ready()
        except TimeoutError as error:
            raise ServerUnavailable(f"no cache server answers at {self._target}") from error

    def line(self) -> "AsyncRemoteLine":
        """What one operation talks through."""
        stub = cache_pb2_grpc.CacheStub(self._open_channel())
        return AsyncRemoteLine(stub, self._target, self._options.timeout_s, self._bulk)

    async def hang_up(self) -> None:
        """Close the channel."""
        self._bulk.close()
        channel, self._channel = self._channel, None
        if channel is not None and self._home == (os.getpid(), asyncio.get_running_loop()):
            await channel.close()

    def _open_channel(self) -> grpc.aio.Channel:
        home = (os.getpid(), asyncio.get_running_loop())
        if self._channel is None or self._home != home:
            self._home = home
            found = credentials(self._options)
            if found is None:
                self._channel = grpc.aio.insecure_channel(self._target, CHANNEL_OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(self._target, found, CHANNEL_OPTIONS)
        return self._channel


class AsyncRemoteLine(Calls):
    """The one for event loops."""

    async def submit(self, call: calls.Call) -> object:
        """Start a call."""
        try:
            return self._begin(call)
        except grpc.aio.UsageError as error:  # the channel is closed
            raise ServerUnavailable(f"{self._target}: {error}") from error

    async def wait(self, ticket: Any) -> Any:
        """The reply to a call."""
        if ticket.fetch is not None:
            found = await self._from_bulk(ticket, ticket.fetch)
            if found is not None:
                return found
            ticket = self._read(ticket.fetch)
        try:
            if ticket.gathered is not None:
                async for message in ticket.rpc:
                    ticket.gathered.take(message)
                return ticket.gathered.fetched()
            if not ticket.stream:
                return ticket.reply(await ticket.rpc)
            message = await ticket.rpc.read()
            return ticket.reply(None if message is grpc.aio.EOF else message)
        except grpc.RpcError as error:
            raise status_error(self._target, error) from error
        finally:
            self._done(ticket)

    async def _from_bulk(self, ticket: Ticket, call: calls.Fetch) -> calls.Fetched | None:
        try:
            location = self._bulk.known(call) if ticket.rpc is None else None
            if location is None:
                location = self._located(await ticket.rpc)
            return await _in_thread(partial(self._bulk.fetch, call, location), Attempt())
        except NoWay as reason:
            log.debug("%s over gRPC: %s", call.uri, reason)
        except grpc.RpcError as error:
            self._not_located(error)
        finally:
            self._done(ticket)
        return None


async def _in_thread(work: Callable[[Attempt], calls.Fetched], attempt: Attempt) -> calls.Fetched:
    """Do it in a thread; whoever is cancelled leaves when the thread is done with his buffer."""
    job = asyncio.get_running_loop().run_in_executor(None, work, attempt)
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        attempt.give_up()
        await asyncio.wait([job])
        job.exception()  # looked at
        raise
