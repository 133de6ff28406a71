"""A page of a listing: what botocore makes of it, by both; and what is none is left to it."""

from typing import Any
from xml.sax.saxutils import escape

import botocore.session
import pytest
from botocore.parsers import RestXMLParser
from hypothesis import given
from hypothesis import strategies as st

from cache_server.origins.s3_listing import parse, take_over

_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=20)
_KEYS = st.tuples(_TEXT, st.integers(0, 1 << 50), _TEXT)


def xml(keys: list[tuple[str, int, str]], prefixes: list[str], token: str | None) -> bytes:
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2024-05-06T07:08:09.000Z</LastModified>"
        f"<ETag>&quot;{escape(etag)}&quot;</ETag><Size>{size}</Size>"
        "<Owner><ID>o</ID><DisplayName>Key</DisplayName></Owner></Contents>"
        for key, size, etag in keys
    )
    folds = "".join(
        f"<CommonPrefixes><Prefix>{escape(p)}</Prefix></CommonPrefixes>" for p in prefixes
    )
    more = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>b</Name><Prefix>p</Prefix><EncodingType>url</EncodingType>{more}{contents}{folds}"
        "</ListBucketResult>"
    ).encode()


def by_botocore(body: bytes) -> dict[str, Any]:
    operation = botocore.session.get_session().get_service_model("s3").operation_model(
        "ListObjectsV2"
    )  # fmt: skip
    response = {"body": body, "headers": {}, "status_code": 200}
    page: dict[str, Any] = RestXMLParser().parse(response, operation.output_shape)
    return page


@given(st.lists(_KEYS, max_size=5), st.lists(_TEXT, max_size=3), st.none() | _TEXT)
def test_it_says_what_botocore_says(
    keys: list[tuple[str, int, str]], prefixes: list[str], token: str | None
) -> None:
    body = xml(keys, prefixes, token)
    ours, theirs = parse(body), by_botocore(body)
    assert ours is not None
    used = ("Key", "ETag", "Size", "LastModified")
    assert [{n: e[n] for n in used} for e in ours["Contents"]] == [
        {n: e[n] for n in used} for e in theirs.get("Contents", [])
    ]
    assert [e["Prefix"] for e in ours["CommonPrefixes"]] == [
        e["Prefix"] for e in theirs.get("CommonPrefixes", [])
    ]
    assert ours.get("NextContinuationToken", "") == theirs.get("NextContinuationToken", "")
    assert ours["EncodingType"] == "url"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b"<ListBucketResult><Contents></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents>",
        xml([("k", 1, "e")], [], None).replace(b">1<", b">many<"),
        xml([("k", 1, "e")], [], None).replace(b"2024-", b"then-"),
    ],
)
def test_what_is_no_page_is_left_alone(body: bytes) -> None:
    response = {"body": body, "status_code": 200}
    customized: dict[str, Any] = {}
    take_over(response, customized)
    assert (response["body"], customized) == (body, {})


@given(st.binary(max_size=200))
def test_noise_is_no_page(body: bytes) -> None:
    assert parse(body) is None


def test_an_error_is_left_alone() -> None:
    response = {"body": xml([], [], None), "status_code": 503}
    customized: dict[str, Any] = {}
    take_over(response, customized)
    assert customized == {}
