"""One version of one object, as everything in hotshard sees it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What an origin says of an object.

    Equal `(uri, version)` means equal bytes, for ever; that is what makes every cached file immutable.
    """

    uri: str
    version: str
    """Opaque. S3: the ETag. POSIX: inode, mtime and size."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Last modification at the origin, nanoseconds since 1970."""
