"""The gRPC service: every call but Read, and how errors cross."""

import logging

import grpc
import pytest

from hotshard.core.errors import (
    BY_CODE,
    GRPC_STATUS,
    CorruptData,
    InternalError,
    NotFound,
    Overloaded,
    code_name,
)
from hotshard.core.objects import ObjectInfo
from hotshard.v1 import cache_pb2 as pb
from hotshard.v1 import types_pb2
from hotshard.wire import error_from_pb, info_to_pb
from support.service import SHARD_BYTES, SIZE, URI, refusal, serving


@pytest.fixture
async def scene(tmp_path):
    async with serving(str(tmp_path)) as found:
        yield found


async def test_stat(scene):
    info = await scene.stub.Stat(types_pb2.StatRequest(uri=URI))
    assert info == info_to_pb(ObjectInfo(URI, "v1", SIZE, 1_700_000_000_000_000_001))


async def test_stat_many_answers_each_in_order(scene):
    uris = [URI, "s3://bucket/absent", "s3://bucket/empty"]
    reply = await scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris))
    assert [bool(result.object.uri) for result in reply.results] == [
        True,
        False,
        True,
    ]
    assert isinstance(error_from_pb(reply.results[1].error), NotFound)


async def test_batches_are_limited(scene):
    uris = [URI] * 1001
    for call in (
        scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris)),
        scene.stub.Prefetch(types_pb2.PrefetchRequest(uris=uris)).read(),
    ):
        code, error = await refusal(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "at most 1000" in str(error)
    assert (
        len((await scene.stub.StatMany(types_pb2.StatManyRequest(uris=uris[1:]))).results) == 1000
    )


async def test_list_goes_on_to_the_last_page(scene):
    request = types_pb2.ListRequest(prefix="s3://bucket/", recursive=False, page_size=10_000)
    pages = [page async for page in scene.stub.List(request)]
    assert [page.next_page_token for page in pages] == ["1", "2", ""]
    assert pages[0].objects[0].uri == URI
    assert list(pages[0].common_prefixes) == ["s3://bucket/sub/"]
    assert scene.cache.calls[0] == ("list", "s3://bucket/", False, "", 1000)
    later = [page async for page in scene.stub.List(types_pb2.ListRequest(page_token="2"))]
    assert len(later) == 1


async def test_prefetch_is_followed_to_its_end(scene):
    request = types_pb2.PrefetchRequest(uris=["s3://bucket/a/", URI])
    reports = [report async for report in scene.stub.Prefetch(request)]
    assert [report.done for report in reports] == [False, False, True]
    last = reports[-1]
    assert last.job_id == "job of 2"
    assert (last.planned_bytes, last.resident_objects, last.failed_bytes) == (30, 3, 5)
    assert isinstance(error_from_pb(last.failures[0]), NotFound)


async def test_warm_status(scene):
    request = types_pb2.WarmStatusRequest(job_id="job", wait_ms=4_000_000_000)
    assert (await scene.stub.WarmStatus(request)).listing
    assert scene.warmer.waits == [60.0]
    code, error = await refusal(scene.stub.WarmStatus(types_pb2.WarmStatusRequest(job_id="x")))
    assert code is grpc.StatusCode.NOT_FOUND
    assert isinstance(error, NotFound)


async def test_operators_calls(scene):
    assert list((await scene.stub.Pin(pb.PinRequest(uri=URI))).pins) == [URI]
    assert list((await scene.stub.Unpin(pb.PinRequest(uri=URI))).pins) == []
    evicted = await scene.stub.Evict(pb.EvictRequest(uri=URI, include_pinned=True))
    assert (evicted.shards, evicted.bytes) == (3, 1 << 40)
    assert (await scene.stub.Invalidate(pb.InvalidateRequest(uri=URI))).entries == 7
    assert (await scene.stub.Status(types_pb2.StatusRequest())).node_id == "n1"
    assert scene.cache.calls == [
        ("pin", URI),
        ("unpin", URI),
        ("evict", URI, True),
        ("invalidate", URI),
    ]


async def test_explain(scene):
    reply = await scene.stub.Explain(pb.ExplainRequest(uri=URI))
    assert (reply.origin, reply.metadata_age_s, reply.lease_s) == ("s3://bucket/", 1.5, 2.5)
    assert reply.last_miss == "evicted"
    (shard,) = reply.shards
    assert (shard.index, shard.state, shard.size_bytes) == (1, "partial", SHARD_BYTES)
    assert (shard.present_bytes, shard.path, shard.pinned, shard.verified) == (
        10,
        "/nvme",
        True,
        False,
    )
    assert len(shard.digest) == 32


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*BY_CODE.values(), CorruptData], ids=lambda kind: kind.__name__)
async def test_every_error_crosses_as_its_type(scene, kind):
    scene.cache.failure = kind("what went wrong: \u00e4\n", uri=URI)
    for call in (
        scene.stub.Stat(types_pb2.StatRequest(uri=URI)),
        scene.stub.Read(pb.ReadRequest(uri=URI)).read(),
    ):
        code, error = await refusal(call)
        name = code_name(scene.cache.failure)
        assert code is grpc.StatusCode[GRPC_STATUS[name]]
        assert type(error) is BY_CODE[name]
        assert (str(error), error.uri) == ("what went wrong: \u00e4\n", URI)


async def test_overloaded_says_when_to_come_back(scene):
    scene.cache.failure = Overloaded("full", retry_after_s=2.5)
    _, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=URI)))
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 2.5


async def test_a_defect_says_nothing_of_our_insides(scene, caplog):
    scene.cache.failure = RuntimeError("password=secret")
    with caplog.at_level(logging.ERROR):
        code, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=URI)))
    assert code is grpc.StatusCode.INTERNAL
    assert type(error) is InternalError
    assert "secret" not in str(error)
    (record,) = [r for r in caplog.records if r.name == "cache_server.answer"]
    assert record.exc_info is not None
    assert "secret" in str(record.exc_info[1])


async def test_the_longest_names_fit_into_an_error(scene):
    uri = "file:///" + "\u00e9" * 2044
    scene.cache.failure = NotFound(f"{uri} is not there", uri=uri)
    _, error = await refusal(scene.stub.Stat(types_pb2.StatRequest(uri=uri)))
    assert isinstance(error, NotFound)
    assert error.uri == uri


async def test_requests_are_counted_with_their_codes(scene):
    await scene.stub.Stat(types_pb2.StatRequest(uri=URI))
    await refusal(scene.stub.Stat(types_pb2.StatRequest(uri="s3://bucket/absent")))
    found = scene.metrics.snapshot()
    assert found['hotshard_requests_total{code="ok",method="Stat",path="grpc"}'] == 1
    assert found['hotshard_requests_total{code="not_found",method="Stat",path="grpc"}'] == 1
    assert found['hotshard_requests_total{code="internal",method="Stat",path="grpc"}'] == 0
