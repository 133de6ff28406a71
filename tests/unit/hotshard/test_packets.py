"""Calls and replies as packets: nothing a peer sends may raise anything but our own errors."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard import calls, packets
from hotshard.core.errors import HotshardError, InternalError, PermissionDenied
from hotshard.v1 import local_pb2 as pb
from hotshard.wire import error_to_pb

CALLS: list[tuple[Any, str]] = [
    (calls.Stat("s3://b/k"), "stat"),
    (calls.StatMany(["s3://b/k", "s3://b/l"]), "stat_many"),
    (calls.ListPage("s3://b/", recursive=True, token="t", page_size=5), "list"),
    (calls.Open("s3://b/k", "v", 1, 2), "open"),
    (calls.OpenMany([calls.Open("s3://b/k", "v", 1, 2)]), "open_many"),
    (calls.Prefetch(["s3://b/"]), "prefetch"),
    (calls.WarmStatus("job", 1.5), "warm_status"),
    (calls.Touch(["s3://b/k"]), "touch"),
    (calls.Status(), "status"),
]


@pytest.mark.parametrize(("call", "name"), CALLS, ids=[name for _, name in CALLS])
def test_a_call_is_a_request(call: calls.Call, name: str):
    request = pb.LocalRequest.FromString(packets.encode(7, call, 500))
    assert (request.id, request.timeout_ms, request.WhichOneof("call")) == (7, 500, name)


def test_fields_arrive():
    request = pb.LocalRequest.FromString(packets.encode(1, CALLS[4][0], 0))
    ask = request.open_many.opens[0]
    assert (ask.uri, ask.version, ask.offset, ask.length) == ("s3://b/k", "v", 1, 2)
    request = pb.LocalRequest.FromString(packets.encode(1, CALLS[6][0], 0))
    assert (request.warm_status.job_id, request.warm_status.wait_ms) == ("job", 1500)
    request = pb.LocalRequest.FromString(packets.encode(1, CALLS[2][0], 0))
    assert (request.list.page_token, request.list.page_size) == ("t", 5)


def test_an_empty_call_is_still_named():
    for call in (calls.Prefetch([]), calls.StatMany([]), calls.OpenMany([])):
        request = pb.LocalRequest.FromString(packets.encode(1, call, 0))
        assert request.WhichOneof("call") is not None


@given(st.binary(max_size=200), st.sampled_from([call for call, _ in CALLS if call != CALLS[7][0]]))
def test_garbage_raises_only_our_errors(data: bytes, call: calls.Call):
    try:
        packets.result(packets.decode(data), call, [])
    except HotshardError:
        return


def test_an_answer_to_another_question():
    reply = pb.LocalReply(id=1, prefetch=pb.PrefetchReply(job_id="x"))
    with pytest.raises(InternalError, match="prefetch"):
        packets.result(reply, calls.Stat("s3://b/k"), [])


def test_hello():
    packets.check_hello(pb.LocalReply(hello=pb.HelloReply(protocol=1)))
    with pytest.raises(InternalError, match="protocol 2"):
        packets.check_hello(pb.LocalReply(hello=pb.HelloReply(protocol=2)))
    refusal = pb.LocalReply(error=error_to_pb(PermissionDenied("uid 5 is not allowed")))
    for check in (packets.check_hello, packets.check_notice):
        with pytest.raises(PermissionDenied, match="uid 5"):
            check(refusal)
    packets.check_notice(pb.LocalReply(notice=pb.Notice()))
