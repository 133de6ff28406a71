from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.core import bulkwire as wire
from hotshard.core.checksum import Algorithm
from hotshard.core.errors import NotFound, Overloaded

REQUEST = wire.Request(
    flags=wire.Flag.FORWARDED,
    cluster=wire.cluster_id("training"),
    view=3,
    request_id=258,
    uri="s3://bucket/key",
    version='"etag"',
    offset=8 << 20,
    length=1 << 20,
    size=9 << 20,
    mtime_ns=1_700_000_000_000_000_000,
)
REPLY = wire.Reply(
    request_id=258,
    flags=wire.ReplyFlag.NOT_OWNER,
    view=4,
    size=9 << 20,
    mtime_ns=-1,
    offset=8 << 20,
    length=1 << 20,
    algorithm=Algorithm.CRC64NVME,
    block_bytes=8 << 20,
    sums=(0x0102030405060708,),
    text='"etag"',
)

# docs/BULK.md shows these. They change only with VERSION.
GOLDEN_REQUEST = (
    "48534251"
    "01"
    "01"
    "0001"  # magic, version, kind, flags
    "f3199db6d7c9bdf7"
    "0000000000000003"
    "0000000000000102"  # cluster, view, request id
    "0000000000800000"
    "0000000000100000"  # offset, length
    "0000000000900000"
    "17979cfe362a0000"  # size, mtime
    "00000000"
    "000f"
    "0006"
    "00000000000000000000000000000000"  # expires, lengths, ticket
    "73333a2f2f6275636b65742f6b6579"
    "226574616722"  # uri, version
)
GOLDEN_REPLY = (
    "48534252"
    "01"
    "00"
    "02"
    "01"
    "00000000"  # magic, version, status, algorithm, flags, retry
    "0000000000000102"
    "0000000000000004"  # request id, view
    "0000000000900000"
    "ffffffffffffffff"  # size, mtime
    "0000000000800000"
    "0000000000100000"  # offset, length
    "00800000"
    "0001"
    "0006"  # block bytes, checksums, text
    "0102030405060708"
    "226574616722"  # checksums, text
)
GOLDEN_TICKET = "dbcecc8afb085e9cead746e159216225"


def decoded_request(data: bytes) -> wire.Request:
    head, rest = data[: wire.REQUEST_HEAD_BYTES], data[wire.REQUEST_HEAD_BYTES :]
    if len(head) < wire.REQUEST_HEAD_BYTES or wire.request_rest(head) != len(rest):
        raise wire.Malformed("cut")
    return wire.decode_request(head, rest)


def decoded_reply(data: bytes) -> wire.Reply:
    head, rest = data[: wire.REPLY_HEAD_BYTES], data[wire.REPLY_HEAD_BYTES :]
    if len(head) < wire.REPLY_HEAD_BYTES or wire.reply_rest(head) != len(rest):
        raise wire.Malformed("cut")
    return wire.decode_reply(head, rest)


def test_golden_bytes_of_a_request():
    assert wire.encode_request(REQUEST).hex() == GOLDEN_REQUEST
    assert decoded_request(bytes.fromhex(GOLDEN_REQUEST)) == REQUEST


def test_golden_bytes_of_a_reply():
    assert wire.encode_reply(REPLY).hex() == GOLDEN_REPLY
    assert decoded_reply(bytes.fromhex(GOLDEN_REPLY)) == REPLY


def test_golden_ticket():
    assert wire.signed(REQUEST, b"secret", 1_800_000_000).ticket.hex() == GOLDEN_TICKET


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("uri", "s3://bucket/other"),
        ("version", "v2"),
        ("flags", wire.Flag.NONE),
        ("kind", wire.Kind.WHOLE),
        ("cluster", 5),
        ("size", 10 << 20),
        ("mtime_ns", 0),
        ("expires", 1_900_000_000),
    ],
)
def test_a_ticket_is_good_for_one_object_and_one_way_of_asking(field, value):
    signed = wire.signed(REQUEST, b"secret", 1_800_000_000)
    assert wire.is_genuine(signed, b"secret", 1_700_000_000)
    assert not wire.is_genuine(signed, b"secret", 1_800_000_001)
    assert not wire.is_genuine(signed, b"other", 1_700_000_000)
    assert wire.is_genuine(replace(signed, offset=0, length=5), b"secret", 1_700_000_000)
    assert not wire.is_genuine(replace(signed, **{field: value}), b"secret", 1_700_000_000)


requests = st.builds(
    wire.Request,
    kind=st.sampled_from(wire.Kind),
    flags=st.sampled_from([wire.Flag.NONE, wire.Flag.FORWARDED, wire.Flag.ONLY_CACHED]),
    cluster=st.integers(0, 2**64 - 1),
    view=st.integers(0, 2**64 - 1),
    request_id=st.integers(0, 2**64 - 1),
    uri=st.text(min_size=1, max_size=100),
    version=st.text(max_size=50),
    offset=st.integers(0, 2**62),
    length=st.integers(0, wire.LENGTH_MAX),
    size=st.integers(0, 2**64 - 1),
    mtime_ns=st.integers(-(2**63), 2**63 - 1),
    expires=st.integers(0, 2**32 - 1),
    ticket=st.binary(min_size=16, max_size=16),
)


@given(requests)
def test_requests_survive_the_journey(request_):
    assert decoded_request(wire.encode_request(request_)) == request_


@given(
    st.builds(
        wire.Reply,
        status=st.just(wire.Status.OK),
        request_id=st.integers(0, 2**64 - 1),
        length=st.integers(0, wire.LENGTH_MAX),
        algorithm=st.none() | st.sampled_from(Algorithm),
        sums=st.lists(st.integers(0, 2**64 - 1), max_size=40).map(tuple),
        text=st.text(max_size=100),
    )
)
def test_replies_survive_the_journey(reply):
    assert decoded_reply(wire.encode_reply(reply)) == reply


@given(st.binary(max_size=200) | st.builds(lambda r: wire.encode_request(r)[:-1], requests))
def test_garbage_is_malformed_and_nothing_else(data):
    for decode in (decoded_request, decoded_reply):
        with pytest.raises(wire.Malformed):
            decode(data)


@given(requests, st.integers(0, 87), st.integers(0, 255))
def test_a_changed_byte_is_malformed_or_another_request(request_, at, value):
    data = bytearray(wire.encode_request(request_))
    data[at] = value
    with suppress(wire.Malformed):
        decoded_request(bytes(data))


def test_errors_keep_their_type_and_when_to_come_back():
    for error in (NotFound("no such", uri="s3://b/k"), Overloaded("full", retry_after_s=0.25)):
        reply = decoded_reply(wire.encode_reply(wire.refusal(5, error)))
        again = wire.error_of(reply, "s3://b/k")
        assert (type(again), str(again), reply.request_id) == (type(error), str(error), 5)
        if isinstance(again, Overloaded):
            assert again.retry_after_s == 0.25
    hidden = wire.refusal(5, RuntimeError("secret detail"))
    assert hidden.status is wire.Status.INTERNAL
    assert "secret" not in hidden.text


def test_names_that_are_too_long_do_not_travel():
    with pytest.raises(wire.Malformed):
        wire.encode_request(wire.Request(cluster=0, uri="s3://b/" + "x" * 5000))
