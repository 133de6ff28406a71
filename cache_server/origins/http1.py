"""The head of an HTTP/1.1 response, parsed strictly. Pure.

Only what S3 answers to GET and HEAD is understood: a status line, headers, and a body that Content-Length
measures. What is doubtful is refused rather than guessed, because a wrong guess would shift the bytes of
every later response on the connection.
"""

import re
from dataclasses import dataclass
from functools import lru_cache

HEAD_BYTES_MAX = 16 << 10  # S3 sends 0.5 to 3 KiB; user metadata is limited to 2 KiB
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DIGITS = re.compile(r"[0-9]{1,18}")


class MalformedResponse(Exception):
    """The other side does not speak HTTP as we know it; its connection is of no more use."""


@dataclass(frozen=True, slots=True)
class Head:
    """A status line and headers."""

    status: int
    headers: dict[str, str]
    """Lower-case names; the values of a repeated header are joined by ", "."""
    length: int | None
    """Bytes of body; None: not told, or told in a way that is not understood here (chunked)."""
    persistent: bool
    """Whether the other side lets another request follow on this connection."""


def parse_head(data: bytes) -> Head:
    """Parse what comes before the empty line.

    Raises:
        MalformedResponse: it is no HTTP/1.x response, or an ambiguous one.
    """
    first, *lines = data.decode("latin-1").split("\r\n")
    match = _STATUS_LINE.fullmatch(first)
    if not match:
        raise MalformedResponse(f"not an HTTP response: {first[:80]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        sent, _, value = line.partition(":")
        name = _field_name(sent)
        if not name:
            raise MalformedResponse(f"a bad header line: {line[:80]!r}")
        value = value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    persistent = match[1] == "1" and "close" not in headers.get("connection", "").lower()
    return Head(int(match[2]), headers, _body_length(headers), persistent)


@lru_cache(256)
def _field_name(sent: str) -> str:
    """In lower case; "": it is none. A server sends the same few again and again."""
    return sent.lower() if _NAME.fullmatch(sent) else ""


def _body_length(headers: dict[str, str]) -> int | None:
    text = headers.get("content-length")
    if "transfer-encoding" in headers:
        if text is not None:
            raise MalformedResponse("both Content-Length and Transfer-Encoding")
        return None
    if text is None:
        return None
    if not _DIGITS.fullmatch(text):
        raise MalformedResponse(f"a bad Content-Length: {text[:80]!r}")
    return int(text)
