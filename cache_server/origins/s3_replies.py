"""What an answer of S3 means: object descriptions, checks of ranges, and errors. Pure.

Works on a status and lower-case headers, so that the engine and aiobotocore are judged by one set of rules.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from cache_server.origins.origin import Want
from cache_server.origins.tries import Transient
from hotshard.core.checksum import S3_HEADERS, Checksum, from_s3
from hotshard.core.errors import (
    HotshardError,
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo

_CODE = re.compile(rb"<Code>([A-Za-z0-9._-]{1,80})</Code>")
_MESSAGE = re.compile(rb"<Message>([^<]{1,300})</Message>")
_VERSION = re.compile(r"[!#-~]{1,256}")  # printable ASCII but the quote: what an ETag may hold
_RETRIED = {408, 429, 500, 502, 503, 504}
_RETRIED_CODES = {"RequestTimeout", "SlowDown", "Throttling"}
_DENIED_CODES = {"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"}
_SLOW_DOWN = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_SLOW_DOWN_CODES = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"}


class Unexpected(Exception):
    """An answer the engine does not handle: a redirect, a chunked body, another ETag. aiobotocore may."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom an answer is about, for error messages."""

    uri: str
    bucket: str
    pinned: bool
    """Whether one version was asked for: its absence means that the object changed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer other than success."""

    status: int
    code: str = ""
    """S3's own name for the error; empty when the body did not tell (a HEAD has none)."""
    message: str = ""
    retry_after: str = ""
    """The header, as it came."""


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """Read an error answer; the body is S3's XML, or anything."""
    code, message = _CODE.search(body), _MESSAGE.search(body)
    return Refusal(
        status,
        code[1].decode() if code else "",
        message[1].decode("utf-8", "replace") if message else "",
        headers.get("retry-after", ""),
    )


def failure(refused: Refusal, subject: Subject) -> HotshardError | Transient:
    """The exception that an error answer becomes."""
    status, uri = refused.status, subject.uri
    said = f"{refused.code or status}{': ' if refused.message else ''}{refused.message}"
    if status in _RETRIED or refused.code in _RETRIED_CODES:
        return Transient(
            f"S3 answered {status} {said}",
            retry_after_s=_seconds(refused.retry_after),
            slow_down=status in _SLOW_DOWN or refused.code in _SLOW_DOWN_CODES,
        )
    kind: type[HotshardError]
    if refused.code == "NoSuchBucket":
        kind, text = NotFound, f"no such bucket: {subject.bucket}"
    elif subject.pinned and status in {404, 412, 416}:
        kind, text = StaleObject, f"{uri} changed at the origin (S3 answered {said})"
    elif status == HTTPStatus.NOT_FOUND:
        kind, text = NotFound, f"no such object: {uri}"
    elif status in {401, 403} or refused.code in _DENIED_CODES:
        kind, text = PermissionDenied, _denied(subject, said)
    elif refused.code.startswith("KMS."):
        kind, text = PermissionDenied, f"the KMS key of {uri} cannot be used ({said})"
    elif status == HTTPStatus.BAD_REQUEST:
        kind, text = InvalidRequest, f"S3 refused the request for {uri} ({said})"
    else:
        kind, text = OriginUnavailable, f"S3 answered {status} {said} for {uri}"
    return kind(text, uri=uri)


def _denied(subject: Subject, said: str) -> str:
    return (
        f"S3 denied {subject.uri} ({said}). Check that the credentials of this server may s3:GetObject on"
        f" bucket {subject.bucket} (and kms:Decrypt, if it is encrypted with a KMS key), and"
        f" s3:ListBucket: without it S3 also says so of a key that does not exist"
    )


def _seconds(text: str) -> float:
    """A Retry-After header; dates are not used by S3 and count as none."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def version_of(headers: Mapping[str, str]) -> str:
    """The ETag without its quotes and without the mark of a weak one; empty: none."""
    return headers.get("etag", "").removeprefix("W/").strip('"')


def if_match(info: ObjectInfo) -> str:
    """The If-Match header that pins a version.

    Raises:
        StaleObject: no ETag looks like this version, so the origin cannot hold it.
    """
    if not _VERSION.fullmatch(info.version):
        raise StaleObject(f"{info.uri} has no version {info.version[:80]!r}", uri=info.uri)
    return f'"{info.version}"'


def object_info(uri: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Describe an object from the answer to a HEAD.

    Raises:
        Unexpected: the answer lacks what describes an object.
    """
    version, length = version_of(headers), headers.get("content-length", "")
    if not version or not length.isdigit():
        raise Unexpected(f"a HEAD answer without ETag or Content-Length for {uri}")
    return ObjectInfo(uri, version, int(length), _modified_ns(headers.get("last-modified", "")))


def _modified_ns(text: str) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp()) * 1_000_000_000
    except ValueError:
        return 0  # it is for display only; versions are told apart by their ETag


def check_range(status: int, headers: Mapping[str, str], want: Want) -> None:
    """See that an answer of success carries exactly the wanted range of the wanted version.

    Raises:
        Unexpected: another version, whatever If-Match asked for.
        Transient: another range or length.
    """
    if version_of(headers) != want.info.version:
        raise Unexpected(f"an answer with ETag {headers.get('etag', '')[:80]!r}")
    if headers.get("content-length") != str(want.length):
        raise Transient(f"{headers.get('content-length')} bytes instead of {want.length}")
    last = want.offset + want.length - 1
    ranged = headers.get("content-range")
    if status == HTTPStatus.PARTIAL_CONTENT:
        if ranged != f"bytes {want.offset}-{last}/{want.info.size}":
            raise Transient(
                f"Content-Range {(ranged or '')[:80]!r} instead of {want.offset}-{last}"
            )
    elif want.length != want.info.size:
        raise Transient(f"status {status} for a range")


def whole_checksum(headers: Mapping[str, str]) -> Checksum | None:
    """The checksum of the whole object that an answer carries, if it is one that can be combined."""
    if headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for name, algorithm in S3_HEADERS.items():
        text = headers.get(name)
        found = from_s3(algorithm, text) if text else None
        if found:
            return found
    return None
