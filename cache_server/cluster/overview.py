"""All nodes of a cluster at one look, for the status page of any of them.

Each member is asked how it is, a few at a time and each for a short while; who does not answer has a place,
too. However many look, members are asked once a second at most.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cache_server.cluster.membership import Membership
from cache_server.cluster.peers import PeerFailed, Peers
from cache_server.cluster.ports import PeerAddress
from hotshard.core.members import Member
from hotshard.v1 import types_pb2 as pb
from hotshard.wire import member_to_pb

KEPT_S = 1.0
ASK_S = 2.0
ASKED_AT_ONCE = 16
ASKED_MAX = 256
"""The others are listed, without figures."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One member, with what it says of itself, or why that is not known."""

    member: pb.Member
    said: pb.StatusReply | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster, as one of its nodes sees it."""

    at_s: float
    """Since 1970."""
    nodes: Sequence[NodeView]
    me: str
    name: str = ""
    """Of the cluster; empty: a node on its own."""
    slots: int = 0
    owned: Counter[str] = field(default_factory=Counter)
    """Member -> slots that it owns in the first rank; of the zone of the node that is asked."""


class Overviews:
    """Makes them. Use from the event loop only."""

    def __init__(
        self,
        status: Callable[..., pb.StatusReply],
        membership: Membership | None = None,
        peers: Peers | None = None,
    ) -> None:
        self.status = status
        """The full report of this node."""
        self._membership = membership
        self._peers = peers
        self._asking = asyncio.Lock()
        self._kept: Overview | None = None

    def of_this_node(self) -> Overview:
        """This node alone."""
        said = self.status(brief=True)
        member = said.cluster.me if said.HasField("cluster") else pb.Member(id=said.node_id)
        if not member.state:
            member.state = "ready" if said.ready else "not ready"
        return Overview(time.time(), [NodeView(member, said)], said.node_id)

    async def of_all(self) -> Overview:
        """All members, at most a second old."""
        membership, peers = self._membership, self._peers
        if membership is None or peers is None:
            return self.of_this_node()
        async with self._asking:
            kept = self._kept
            if kept is None or time.time() - kept.at_s > KEPT_S:
                kept = self._kept = await self._ask_all(membership, peers)
            return kept

    async def _ask_all(self, membership: Membership, peers: Peers) -> Overview:
        view = membership.view
        members = list(view.members)
        answers: list[NodeView] = [NodeView(member_to_pb(m), error="not asked") for m in members]
        todo = iter(range(min(len(members), ASKED_MAX)))

        async def worker() -> None:
            for i in todo:
                answers[i] = await self._ask(membership, peers, members[i])

        async with asyncio.TaskGroup() as group:
            for _ in range(min(ASKED_AT_ONCE, len(members))):
                group.create_task(worker())
        return Overview(
            at_s=time.time(),
            nodes=answers,
            me=view.me,
            name=view.cluster,
            slots=view.table.slots,
            owned=Counter(view.table.loads()),
        )

    async def _ask(self, membership: Membership, peers: Peers, member: Member) -> NodeView:
        if member.id == membership.me:
            return NodeView(member_to_pb(member), self.status(brief=True))
        address = PeerAddress(member.id, member.grpc, member.bulk, member.zone)
        try:
            said = await peers.status(address, ASK_S)
        except PeerFailed as failed:
            return NodeView(member_to_pb(member), error=str(failed))
        return NodeView(member_to_pb(member), said)
