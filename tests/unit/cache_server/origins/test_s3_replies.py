"""What an answer of S3 means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.origins.origin import Want
from cache_server.origins.s3_replies import (
    Refusal,
    Subject,
    Unexpected,
    check_range,
    failure,
    if_match,
    object_info,
    refusal,
    version_of,
    whole_checksum,
)
from cache_server.origins.tries import Transient
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.errors import (
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo

OPEN = Subject("s3://b/k", "b", pinned=False)
PINNED = Subject("s3://b/k", "b", pinned=True)
INFO = ObjectInfo("s3://b/k", "abc", 100, 0)


@pytest.mark.parametrize(
    ("refused", "subject", "expected"),
    [
        (Refusal(404, "NoSuchKey"), OPEN, NotFound),
        (Refusal(404), OPEN, NotFound),
        (Refusal(404, "NoSuchKey"), PINNED, StaleObject),
        (Refusal(404, "NoSuchBucket"), PINNED, NotFound),
        (Refusal(412), PINNED, StaleObject),
        (Refusal(416), PINNED, StaleObject),
        (Refusal(401), OPEN, PermissionDenied),
        (Refusal(403, "AccessDenied"), PINNED, PermissionDenied),
        (Refusal(403, "InvalidObjectState"), PINNED, PermissionDenied),
        (Refusal(400, "ExpiredToken"), OPEN, PermissionDenied),
        (Refusal(400, "KMS.DisabledException"), OPEN, PermissionDenied),
        (Refusal(400, "InvalidArgument"), OPEN, InvalidRequest),
        (Refusal(400, "RequestTimeout"), OPEN, Transient),
        (Refusal(429), OPEN, Transient),
        (Refusal(500), OPEN, Transient),
        (Refusal(503, "SlowDown"), PINNED, Transient),
        (Refusal(501), OPEN, OriginUnavailable),
        (Refusal(0), OPEN, OriginUnavailable),
    ],
)
def test_refusals(refused: Refusal, subject: Subject, expected: type[Exception]) -> None:
    assert type(failure(refused, subject)) is expected


def test_a_denial_says_what_to_check() -> None:
    text = str(failure(Refusal(403, "AccessDenied", "Access Denied"), OPEN))
    for word in ("AccessDenied", "bucket b", "s3:GetObject", "kms:Decrypt", "s3:ListBucket"):
        assert word in text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 0), ("3", 3), ("0", 0), ("-1", 0), ("1e9", 0), ("9999999", 0), ("Wed, 21 Oct", 0)],
)
def test_retry_after(text: str, seconds: float) -> None:
    found = failure(Refusal(503, retry_after=text), OPEN)
    assert isinstance(found, Transient)
    assert found.retry_after_s == seconds


def test_the_body_of_an_error_is_read_as_far_as_it_is_xml() -> None:
    body = b"<?xml?><Error><Code>SlowDown</Code><Message>Please wait</Message></Error>"
    assert refusal(503, {"retry-after": "2"}, body) == Refusal(503, "SlowDown", "Please wait", "2")
    assert refusal(503, {}, b"<html>no") == Refusal(503)


@given(st.binary(max_size=200))
def test_no_body_of_an_error_breaks_it(body: bytes) -> None:
    assert refusal(500, {}, b"<Message>" + body + b"</Message>").status == 500


@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', "abc"])
def test_versions(etag: str) -> None:
    assert version_of({"etag": etag}) == "abc"


@pytest.mark.parametrize("version", ["", "a b", 'a"b', "a\r\nb", "é", "x" * 257])
def test_what_no_etag_looks_like_is_not_sent(version: str) -> None:
    with pytest.raises(StaleObject):
        if_match(ObjectInfo("s3://b/k", version, 1, 0))
    assert if_match(INFO) == '"abc"'


def test_an_object_is_described() -> None:
    headers = {
        "etag": '"abc"',
        "content-length": "100",
        "last-modified": "Sun, 22 Nov 2026 13:01:38 GMT",
    }
    assert object_info("s3://b/k", headers) == ObjectInfo(
        "s3://b/k", "abc", 100, 1_795_352_498_000_000_000
    )
    assert object_info("s3://b/k", {**headers, "last-modified": "soon"}).mtime_ns == 0
    for name in ("etag", "content-length"):
        with pytest.raises(Unexpected):
            object_info("s3://b/k", {k: v for k, v in headers.items() if k != name})


PART = {"etag": '"abc"', "content-length": "10", "content-range": "bytes 5-14/100"}
WANT = Want(INFO, 5, 10)


def test_the_wanted_range_is_accepted() -> None:
    check_range(206, PART, WANT)
    check_range(200, {"etag": '"abc"', "content-length": "100"}, Want(INFO, 0, 100))


@pytest.mark.parametrize(
    ("status", "change", "error"),
    [
        (206, {"etag": '"other"'}, Unexpected),
        (206, {"etag": ""}, Unexpected),
        (206, {"content-length": "11"}, Transient),
        (206, {"content-range": "bytes 6-15/100"}, Transient),
        (206, {"content-range": "bytes 5-14/101"}, Transient),
        (206, {"content-range": ""}, Transient),
        (200, {}, Transient),
    ],
)
def test_any_other_range_is_refused(
    status: int, change: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_range(status, PART | change, WANT)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-amz-checksum-crc32": "AAAAAQ=="}, Checksum(Algorithm.CRC32, 1)),
        (
            {"x-amz-checksum-crc32": "AAAAAQ==", "x-amz-checksum-crc64nvme": "AAAAAAAAAAI="},
            Checksum(Algorithm.CRC64NVME, 2),
        ),
        ({"x-amz-checksum-crc32c": "AAAAAQ==-2"}, None),
        ({"x-amz-checksum-crc32c": "AAAAAQ==", "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-sha256": "AAAAAQ=="}, None),
    ],
)
def test_checksums_of_the_whole(headers: dict[str, str], found: Checksum | None) -> None:
    assert whole_checksum(headers) == found
