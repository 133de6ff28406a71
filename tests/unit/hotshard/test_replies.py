"""Messages become values, field by field."""

from hotshard.calls import (
    ClusterStatus,
    DatasetStatus,
    DiskStatus,
    Prefix,
    ServerStatus,
    WarmProgress,
)
from hotshard.core.errors import NotFound
from hotshard.core.objects import ObjectInfo
from hotshard.replies import page_from_pb, progress_from_pb, stats_from_pb, status_from_pb
from hotshard.v1 import types_pb2 as pb

INFO = pb.ObjectInfo(uri="s3://b/k", version="v", size_bytes=3, mtime_ns=4)
GONE = pb.Error(code=pb.ERROR_CODE_NOT_FOUND, message="gone", uri="s3://b/l")


def test_stats():
    reply = pb.StatManyReply(results=[pb.StatResult(object=INFO), pb.StatResult(error=GONE)])
    found, missing = stats_from_pb(reply)
    assert found == ObjectInfo("s3://b/k", "v", 3, 4)
    assert isinstance(missing, NotFound)


def test_page():
    reply = pb.ListReply(objects=[INFO], common_prefixes=["s3://b/d/"], next_page_token="t")
    page = page_from_pb(reply)
    assert page.objects == [ObjectInfo("s3://b/k", "v", 3, 4)]
    assert page.prefixes == [Prefix("s3://b/d/")]
    assert page.next_token == "t"


def test_progress():
    reply = pb.WarmProgress(
        job_id="j",
        listing=True,
        planned_objects=1,
        planned_bytes=2,
        resident_objects=3,
        resident_bytes=4,
        failed_objects=5,
        failed_bytes=6,
        failures=[GONE],
        done=True,
    )
    progress = progress_from_pb(reply)
    assert progress == WarmProgress(True, 1, 2, 3, 4, 5, 6, progress.failures, done=True)
    assert isinstance(progress.failures[0], NotFound)


def test_status():
    reply = pb.StatusReply(
        node_id="n",
        version="1",
        uptime_s=2.5,
        ready=True,
        origins=["s3://b/"],
        disks=[
            pb.DiskStatus(
                path="/c",
                disk_id="d",
                state="ok",
                detail="-",
                capacity_bytes=9,
                used_bytes=8,
                sealed_shards=7,
                partial_bytes=6,
            )
        ],
        datasets=[pb.DatasetStatus(name="s3://b/", shards=1, bytes=2)],
        counters={"hits": 3.0},
    )
    assert status_from_pb(reply).cluster is None
    reply.cluster.CopyFrom(
        pb.ClusterStatus(
            name="prod",
            me=pb.Member(id="n", grpc="10.0.0.1:7070", zone="a", state="ready"),
            view_version=9,
            members={"ready": 3, "lost": 1},
            slots_owned=4000,
            slots=16384,
        )
    )
    assert status_from_pb(reply) == ServerStatus(
        "n",
        "1",
        2.5,
        True,
        ["s3://b/"],
        [DiskStatus("/c", "d", "ok", "-", 9, 8, 7, 6)],
        [DatasetStatus("s3://b/", 1, 2)],
        {"hits": 3.0},
        ClusterStatus(
            "prod", "10.0.0.1:7070", "a", "ready", 9, {"ready": 3, "lost": 1}, 16384, 4000
        ),
    )
