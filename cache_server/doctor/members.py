"""Who else is in the cluster, whether both of their ports can be reached, and how quickly."""

import asyncio
import os
import time
from typing import Any

import grpc

from cache_server.cluster.channels import Credentials, open_channel
from cache_server.config import ServerConfig
from hotshard.core.findings import Finding, fail, ok, skipped, warn
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import cache_pb2_grpc, types_pb2

CONNECT_S = 2.0
SLOW_S = 0.05
MEMBERS_MAX = 64


async def check(config: ServerConfig, credentials: Credentials | None) -> list[Finding]:
    """All members that are known."""
    if config.cluster.provider == "none":
        return [ok("members", "this node is on its own (cluster.provider: none)")]
    listen = config.grpc.listen
    own = f"{'127.0.0.1' if listen.host in {'0.0.0.0', '::'} else listen.host}:{listen.port}"  # noqa: S104
    found = await _members(own, credentials)
    if found is None:
        if config.cluster.provider != "static":
            why = f"no server answers at {own}, which would know them"
            return [skipped("members", why)]
        members = [types_pb2.Member(grpc=str(address)) for address in config.cluster.members]
        me = ""
    else:
        members, me = list(found.members), found.me
    others = [member for member in members if member.id != me or not me]
    if not others:
        remedy = "if there should be others: look at the service, its selector and its endpoints"
        return [warn("members", "no other member is known", remedy)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_reach(member)) for member in others[:MEMBERS_MAX]]
    return [finding for task in tasks for finding in task.result()]


async def _members(address: str, credentials: Credentials | None) -> pb.MembersReply | None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with open_channel(address, credentials, options) as channel:
        stub: Any = cache_pb2_grpc.CacheStub(channel)
        try:
            reply: pb.MembersReply = await stub.Members(pb.MembersRequest(), timeout=CONNECT_S)
        except grpc.aio.AioRpcError:
            return None
    return reply


async def _reach(member: types_pb2.Member) -> list[Finding]:
    name = f"member {member.id[:8] or member.grpc}"
    found = []
    for port, address in (("gRPC", member.grpc), ("bulk", member.bulk)):
        if address:
            found.append(await _connect(f"{name}: {port}", address))
    return found


async def _connect(name: str, address: str) -> Finding:
    host, _, port = address.rpartition(":")
    began = time.monotonic()
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError) as error:
        reason = os.strerror(error.errno) if error.errno else "no answer"
        remedy = (
            "is the node up? Does a NetworkPolicy or security group allow this port between nodes?"
        )
        return fail(name, f"{address}: {reason}", remedy)
    seconds = time.monotonic() - began
    writer.close()
    fact = f"{address} in {seconds * 1000:.1f} ms"
    if seconds > SLOW_S:
        return warn(name, fact, "that is slow inside of a zone: look at the network of the node")
    return ok(name, fact)
