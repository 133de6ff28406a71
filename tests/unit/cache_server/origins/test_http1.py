"""The parser of response heads: what it reads, and what it refuses to guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.origins.http1 import Head, MalformedResponse, parse_head


def test_an_answer_of_s3() -> None:
    head = parse_head(
        b'HTTP/1.1 206 Partial Content\r\nETag: "abc"\r\nContent-Length: 10\r\n'
        b"Content-Range: bytes 0-9/20\r\nX-Empty:\r\nServer:  AmazonS3 "
    )
    assert head == Head(
        status=206,
        headers={
            "etag": '"abc"',
            "content-length": "10",
            "content-range": "bytes 0-9/20",
            "x-empty": "",
            "server": "AmazonS3",
        },
        length=10,
        persistent=True,
    )


@pytest.mark.parametrize(
    ("head", "persistent"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.0 200 OK", False),
    ],
)
def test_whether_the_connection_lives_on(head: bytes, persistent: bool) -> None:
    assert parse_head(head).persistent is persistent


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        (b"Content-Length: 0", 0),
        (b"content-length: 000123", 123),
        (b"Transfer-Encoding: chunked", None),
        (b"X: y", None),
    ],
)
def test_the_length_of_the_body(headers: bytes, length: int | None) -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\n" + headers).length == length


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 999 Odd",
        b"HTTP/1.1  200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\n Folded: line",
        b"HTTP/1.1 200 OK\r\nName : value",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n: no name",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x10",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_000",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
    ],
)
def test_what_is_doubtful_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedResponse):
        parse_head(head)


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_read_but_never_crashes(data: bytes) -> None:
    for head in (data, b"HTTP/1.1 200 OK\r\n" + data):
        try:
            parsed = parse_head(head)
        except MalformedResponse:
            continue
        assert parsed.length is None or parsed.length >= 0
