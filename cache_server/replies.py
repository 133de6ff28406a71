"""What the parts of the server report, as messages. Shared by the gRPC service and the local socket."""

from typing import Protocol

from cache_server.opened import Explanation
from cache_server.origins.origin import ListPage
from cache_server.warm import WarmState
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import error_to_pb, info_to_pb


class Statuses(Protocol):
    """Who knows how the server is."""

    def status(self, *, brief: bool = False) -> types_pb2.StatusReply:
        """Everything, now; `brief`: without the counters."""


def stat_result_to_pb(answer: ObjectInfo | HotshardError) -> types_pb2.StatResult:
    """One answer of a batch."""
    if isinstance(answer, HotshardError):
        return types_pb2.StatResult(error=error_to_pb(answer))
    return types_pb2.StatResult(object=info_to_pb(answer))


def page_to_pb(page: ListPage) -> types_pb2.ListReply:
    """One page of a listing."""
    return types_pb2.ListReply(
        objects=[info_to_pb(info) for info in page.objects],
        common_prefixes=page.common_prefixes,
        next_page_token=page.next_token,
    )


def progress_to_pb(state: WarmState) -> types_pb2.WarmProgress:
    """Where a warm-up stands, as a message."""
    return types_pb2.WarmProgress(
        job_id=state.job_id,
        listing=state.listing,
        planned_objects=state.planned_objects,
        planned_bytes=state.planned_bytes,
        resident_objects=state.resident_objects,
        resident_bytes=state.resident_bytes,
        failed_objects=state.failed_objects,
        failed_bytes=state.failed_bytes,
        failures=[error_to_pb(error) for error in state.failures],
        done=state.done,
    )


def explanation_to_pb(found: Explanation) -> pb.ExplainReply:
    """What is known of an object."""
    return pb.ExplainReply(
        object=info_to_pb(found.info),
        origin=found.origin,
        metadata_age_s=found.metadata_age_s,
        lease_s=found.lease_s,
        shards=[
            pb.ShardExplanation(
                index=shard.key.index,
                digest=shard.key.digest.hex(),
                state=shard.state,
                size_bytes=shard.key.size,
                present_bytes=shard.present_bytes,
                path=shard.path,
                pinned=shard.pinned,
                verified=shard.verified,
                present_blocks=[end for run in shard.present for end in (run[0], run[-1])],
                blocks=shard.blocks,
            )
            for shard in found.shards
        ],
        last_miss=found.last_miss,
    )
