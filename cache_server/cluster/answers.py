"""What the gRPC service and the status report say of the cluster, as messages.

`Alone` says it for a node without a cluster.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from cache_server.cluster.meeting import terms_from_pb, terms_to_pb
from cache_server.cluster.membership import Membership
from cache_server.cluster.offers import Takes
from hotshard.core import bulkwire
from hotshard.core.blocks import Geometry, shard_digest
from hotshard.core.errors import InvalidRequest
from hotshard.core.objects import ObjectInfo
from hotshard.core.slots import Table
from hotshard.core.view import View
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import info_from_pb, info_to_pb, member_from_pb, member_to_pb

SHARDS_MAX = 4096
"""In one answer to Locate."""
TICKET_S = 600


class ClusterAnswers(Protocol):
    """Who answers."""

    @property
    def cluster(self) -> str:
        """Its name; empty: none."""

    def members(self, *, with_table: bool) -> pb.MembersReply:
        """Who is in the cluster."""

    def changes(self, *, with_table: bool) -> AsyncIterator[pb.MembersReply]:
        """The same, now and at each change."""

    def meet(self, request: pb.MeetRequest) -> pb.MeetReply:
        """Somebody presents himself.

        Raises:
            InvalidRequest: there is no cluster to be met in.
        """

    async def offered(self, request: pb.OfferRequest) -> pb.OfferReply:
        """A member that leaves offers what is ours from now on.

        Raises:
            InvalidRequest: there is no cluster, or the offer makes no sense.
        """

    def locate(self, info: ObjectInfo, offset: int, length: int) -> pb.LocateReply:
        """Who owns the shards of a range."""

    def explain(self, reply: pb.ExplainReply) -> pb.ExplainReply:
        """Adds who owns what."""

    def status(self) -> types_pb2.ClusterStatus | None:
        """This node's membership."""


@dataclass(frozen=True, slots=True)
class Locating:
    """What it takes to say where shards are."""

    geometry: Geometry
    secret: bytes = field(default=b"", repr=False)
    """Of the bulk ports; empty: they ask for no tickets."""
    clock: Callable[[], float] = time.time

    def reply(self, info: ObjectInfo, offset: int, length: int, cluster: str) -> pb.LocateReply:
        """Everything but the owners."""
        reply = pb.LocateReply(object=info_to_pb(info), cluster=cluster)
        for piece in self.geometry.pieces(info.size, offset, length or info.size):
            if len(reply.shards) == SHARDS_MAX:
                problem = (
                    f"more than {SHARDS_MAX} shards in one range; should be asked for in parts"
                )
                raise InvalidRequest(problem, uri=info.uri)
            reply.shards.add(
                index=piece.index,
                digest=shard_digest(info.uri, info.version, piece.index),
                offset=piece.index * self.geometry.shard_bytes,
                size_bytes=self.geometry.shard_size(info.size, piece.index),
            )
        if self.secret:
            request = bulkwire.Request(
                cluster=bulkwire.cluster_id(cluster),
                uri=info.uri,
                version=info.version,
                size=info.size,
                mtime_ns=info.mtime_ns,
            )
            signed = bulkwire.signed(request, self.secret, int(self.clock()) + TICKET_S)
            reply.ticket, reply.ticket_expires = signed.ticket, signed.expires
        return reply


class Alone:
    """A node without a cluster owns everything, and nobody can meet it."""

    def __init__(self, locating: Locating, cluster: str = "") -> None:
        self._locating = locating
        self.cluster = cluster

    def members(self, *, with_table: bool) -> pb.MembersReply:  # noqa: ARG002 - there is no table
        """See ClusterAnswers."""
        return pb.MembersReply()

    async def changes(self, *, with_table: bool) -> AsyncIterator[pb.MembersReply]:
        """See ClusterAnswers."""
        yield self.members(with_table=with_table)

    def meet(self, request: pb.MeetRequest) -> pb.MeetReply:
        """See ClusterAnswers."""
        raise InvalidRequest(
            f"this server is in no cluster, not in {request.terms.cluster[:100]!r}"
        )

    async def offered(self, request: pb.OfferRequest) -> pb.OfferReply:  # noqa: ARG002
        """See ClusterAnswers."""
        raise InvalidRequest("this server is in no cluster")

    def locate(self, info: ObjectInfo, offset: int, length: int) -> pb.LocateReply:
        """See ClusterAnswers."""
        return self._locating.reply(info, offset, length, "")

    def explain(self, reply: pb.ExplainReply) -> pb.ExplainReply:
        """See ClusterAnswers."""
        return reply

    def status(self) -> None:
        """See ClusterAnswers."""


class InCluster:
    """A member."""

    def __init__(self, membership: Membership, locating: Locating, taking: Takes) -> None:
        self._membership = membership
        self._taking = taking
        self._locating = locating
        self.cluster = membership.terms.cluster

    def members(self, *, with_table: bool) -> pb.MembersReply:
        """See ClusterAnswers."""
        return _members(self._membership.view, with_table=with_table)

    async def changes(self, *, with_table: bool) -> AsyncIterator[pb.MembersReply]:
        """See ClusterAnswers."""
        async for view in self._membership.views():
            yield _members(view, with_table=with_table)

    def meet(self, request: pb.MeetRequest) -> pb.MeetReply:
        """See ClusterAnswers."""
        membership = self._membership
        me = membership.heard(member_from_pb(request.me), terms_from_pb(request.terms))
        return pb.MeetReply(
            terms=terms_to_pb(membership.terms),
            me=member_to_pb(me),
            view_version=membership.view_version,
        )

    async def offered(self, request: pb.OfferRequest) -> pb.OfferReply:
        """See ClusterAnswers."""
        offered = [(info_from_pb(each.object), each.index) for each in request.shards]
        shards, size = await self._taking.take(offered)
        return pb.OfferReply(taken_shards=shards, taken_bytes=size)

    def locate(self, info: ObjectInfo, offset: int, length: int) -> pb.LocateReply:
        """See ClusterAnswers."""
        view = self._membership.view
        reply = self._locating.reply(info, offset, length, view.cluster)
        reply.view_version = view.version
        named = {}
        for shard in reply.shards:
            owners = view.owners(shard.digest)
            shard.owners.extend(member.id for member in owners)
            named.update({member.id: member for member in owners})
        reply.members.extend(member_to_pb(named[id_]) for id_ in sorted(named))
        return reply

    def explain(self, reply: pb.ExplainReply) -> pb.ExplainReply:
        """See ClusterAnswers."""
        view = self._membership.view
        for shard in reply.shards:
            digest = bytes.fromhex(shard.digest)
            shard.slot = view.table.slot(digest)
            shard.owners.extend(member.id for member in view.owners(digest))
            shard.previous_owners.extend(member.id for member in view.previous_owners(digest))
            ranked = view.table.owners(digest)
            shard.away_owners.extend(id_ for id_ in ranked if id_ in view.away)
        return reply

    def status(self) -> types_pb2.ClusterStatus:
        """See ClusterAnswers."""
        view = self._membership.view
        me = view.member(view.me)
        return types_pb2.ClusterStatus(
            name=view.cluster,
            me=None if me is None else member_to_pb(me),
            view_version=view.version,
            members=Counter(str(member.state) for member in view.members),
            slots_owned=self._membership.slots_owned,
            slots=view.table.slots,
        )


def _members(view: View, *, with_table: bool) -> pb.MembersReply:
    return pb.MembersReply(
        cluster=view.cluster,
        me=view.me,
        zone=view.zone,
        view_version=view.version,
        members=[member_to_pb(member) for member in view.members],
        table=_table(view.table) if with_table else None,
    )


def _table(table: Table) -> pb.SlotTable:
    return pb.SlotTable(slots=table.slots, width=table.width, ids=table.ids, rows=table.packed())
