"""Addresses: how users name objects and prefixes.

`s3://bucket/key` keeps the key byte for byte as S3 knows it: `//`, `..`, spaces and unicode are parts of
the name, nothing is decoded or folded. `file:///dir/name` is an absolute path; there `.` and `..` are
refused, because a path that climbs out of its origin must not be served, and `//` is folded, because the
file system folds it.

An address that ends in "/" names a prefix. A prefix without a key (`s3://bucket/`) is a whole bucket.
"""

import re
from dataclasses import dataclass

from hotshard.core.errors import InvalidRequest

SCHEMES = ("s3", "file")
KEY_BYTES_MAX = 1024  # S3's own limit; also keeps local-socket messages bounded
PATH_BYTES_MAX = 4096  # PATH_MAX of Linux

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,254}")  # also access point names


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed uri. For `file`, `bucket` is empty and `key` is the absolute path with its slash."""

    scheme: str
    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """The address as text, in the form that compares equal for equal objects."""
        return f"s3://{self.bucket}/{self.key}" if self.scheme == "s3" else f"file://{self.key}"

    @property
    def is_prefix(self) -> bool:
        """Whether it names a prefix (ends in "/", or is a whole bucket)."""
        return not self.key or self.key.endswith("/")

    def __str__(self) -> str:
        return self.uri


def parse(uri: str) -> Address:
    """Split a uri.

    Raises:
        InvalidRequest: not a uri hotshard can serve; the message says why and what a good one looks like.
    """
    scheme, sep, rest = uri.partition("://")
    if not sep or scheme not in SCHEMES:
        raise InvalidRequest(
            f"{uri[:200]!r} is not an address: use s3://bucket/key or file:///path", uri=uri
        )
    if "\0" in rest:
        raise InvalidRequest(f"{uri[:200]!r} has a NUL character", uri=uri)
    try:
        size_bytes = len(rest.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{uri[:200]!r} is not valid unicode", uri=uri) from error
    if scheme == "file":
        return _parse_file(uri, rest, size_bytes)
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidRequest(f"{uri[:200]!r} has no valid bucket name", uri=uri)
    if size_bytes - len(bucket) - 1 > KEY_BYTES_MAX:
        raise InvalidRequest(f"{uri[:200]!r}...: key longer than {KEY_BYTES_MAX} bytes", uri=uri)
    return Address("s3", bucket, key)


def _parse_file(uri: str, path: str, size_bytes: int) -> Address:
    if not path.startswith("/"):
        raise InvalidRequest(f"{uri[:200]!r} needs an absolute path: file:///dir/name", uri=uri)
    if size_bytes > PATH_BYTES_MAX:
        raise InvalidRequest(f"{uri[:200]!r}...: path longer than {PATH_BYTES_MAX} bytes", uri=uri)
    parts = path.split("/")
    if ".." in parts or "." in parts:
        raise InvalidRequest(f"{uri[:200]!r} has '.' or '..' in its path", uri=uri)
    folded = re.sub("/+", "/", path)
    return Address("file", "", folded)


def under(uri: str, prefix: str) -> bool:
    """Whether an object's uri lies under a prefix; without a final "/" it names one object."""
    return uri.startswith(prefix) if prefix.endswith("/") else uri == prefix
