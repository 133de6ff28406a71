"""A cluster in full swing, as its status page sees it: every part of the page has something to show."""

import math
from collections import Counter
from collections.abc import Sequence

from cache_server.cluster.overview import NodeView, Overview
from hotshard.v1 import types_pb2 as pb

NOW_S = 1_790_000_000.0
EVIL = 's3://bucket/<script>document.title="owned"</script>/"\'&amp;/'
GIB = 1 << 30
NODES = 8


def busy_overview(nodes: int = NODES) -> Overview:
    """Nodes in two zones, one silent, one with a failed disk; fills, jobs and names of every kind."""
    ids = [f"{i:02x}{'abcdef0123456789' * 2}"[:32] for i in range(nodes)]
    views = [_node(i, ids) for i in range(nodes)]
    return Overview(
        at_s=NOW_S,
        nodes=views,
        me=ids[0],
        name="train-eu",
        slots=16384,
        owned=Counter(dict.fromkeys(ids, 16384 // nodes)),
    )


def _node(i: int, ids: Sequence[str]) -> NodeView:
    zone = f"eu-central-1{'ab'[i % 2]}"
    member = pb.Member(
        id=ids[i], grpc=f"10.0.{i}.7:7070", bulk=f"10.0.{i}.7:7071", zone=zone, state="ready"
    )
    if i == 5:
        member.state = "lost"
        return NodeView(member, error="no answer: UNAVAILABLE: connection refused (10.0.5.7:7070)")
    if i == 6:
        member.state = "draining"
    reply = pb.StatusReply(
        node_id=ids[i],
        version="0.1.0",
        uptime_s=86_400 * 3 + 5000 * i,
        ready=i != 6,
        history=_history(i),
        disks=_disks(i),
        datasets=[
            pb.DatasetStatus(
                name="s3://corpus/imagenet-21k/",
                shards=51_234,
                bytes=410 * GIB,
                replica_bytes=60 * GIB,
                known_bytes=1100 * GIB,
                state="caching",
            ),
            pb.DatasetStatus(
                name="s3://corpus/laion-aesthetic-v2/",
                shards=3021,
                bytes=755 * GIB,
                known_bytes=9000 * GIB,
                state="streaming",
                streamed_bytes=4000 * GIB,
            ),
            pb.DatasetStatus(name="file:///fsx/tokens/", shards=12, bytes=3 * GIB, state="idle"),
            pb.DatasetStatus(name=EVIL, shards=1, bytes=12_345),
        ],
        cluster=pb.ClusterStatus(
            name="train-eu", me=member, view_version=7, slots_owned=1980 + 37 * i, slots=16384
        ),
        money=pb.Money(
            avoided_requests={"GET": 8_123_456, "HEAD": 120, "LIST": 4321},
            avoided_bytes=6.2e12,
            cross_zone_bytes=0 if i else 7e8,
            direct_usd=3.9,
            spent_usd=0.31,
            saved_usd=3.59,
        ),
        peers=[
            pb.PeerStatus(
                id=other,
                zone=zone,
                latency_s=0.9 if other == ids[3] else 0.004 + 0.001 * j,
                requests=1000,
                failures=412 if other == ids[5] else j,
                left_alone=other == ids[5],
            )
            for j, other in enumerate(ids[:32])
            if other != ids[i]
        ],
    )
    if i == 1:
        reply.fills_running = 3
        reply.fills.add(uri=EVIL + "x", size_bytes=256 << 20, present_bytes=96 << 20, age_s=4.2)
        reply.fills.add(
            uri="s3://corpus/laion-aesthetic-v2/part-00042.tar",
            shard=3,
            size_bytes=256 << 20,
            present_bytes=200 << 20,
            age_s=1.7,
        )
    if i == 2:
        progress = pb.WarmProgress(
            planned_objects=50_000,
            planned_bytes=900 * GIB,
            resident_objects=31_000,
            resident_bytes=560 * GIB,
            failed_objects=2,
            listing=True,
        )
        reply.jobs.add(id="j1", uris=["s3://corpus/laion-aesthetic-v2/", EVIL], progress=progress)
    return NodeView(member, reply)


def _disks(i: int) -> list[pb.DiskStatus]:
    disks = [
        pb.DiskStatus(
            path=f"/mnt/nvme{n}",
            state="ready",
            capacity_bytes=1700 * GIB,
            used_bytes=(600 + 130 * i + 60 * n) * GIB,
            sealed_shards=9000,
        )
        for n in range(2)
    ]
    if i == 4:
        disks[1].state, disks[1].detail = "failed", "Input/output error"
    return disks


def _history(i: int) -> list[pb.Sample]:
    """An hour that begins cold, has a pause, and ends hot."""
    samples, hit, asked, peer, origin = [], 0.0, 0.0, 0.0, 0.0
    for n in range(121):
        age_s = 3600 - 30 * n
        rate = 0.0 if 1500 < age_s < 1800 else 2e9 * (1 + 0.3 * math.sin(n / 5 + i))
        share = min(0.985, n / 40)
        asked += 30 * rate
        hit += 30 * rate * share
        peer += 30 * rate * (1 - share) * 0.8
        origin += 30 * rate * (1 - share) * 0.2
        samples.append(
            pb.Sample(
                at_s=NOW_S - age_s,
                hit_bytes=int(hit),
                asked_bytes=int(asked),
                peer_bytes=int(peer),
                origin_bytes=int(origin),
            )
        )
    return samples
