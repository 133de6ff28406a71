"""How object keys make directories. Pure.

Below the prefix of a mount every "/" in a key opens a directory, whether or not an object marks it:

- a key that ends in "/" is a marker: it makes its directory exist, and is no file;
- a key that is both an object and a prefix (`a` and `a/b`) is the directory; the object cannot be reached
  by path;
- a name that no path can have is hidden and counted: empty (`a//b`), `.`, `..`, longer than 255 bytes.

A page of a listing goes into a `listing.Builder` with `add_page`. Uris keep the key byte for byte.
"""

from collections.abc import Sequence

from hotshard.core.objects import ObjectInfo
from hotshard.mount.listing import NAME_BYTES_MAX, Builder, Kind


def visible(name: bytes) -> bool:
    """Whether a path can have this name."""
    return 0 < len(name) <= NAME_BYTES_MAX and name not in {b".", b".."} and b"/" not in name


def add_page(
    builder: Builder, prefix: str, objects: Sequence[ObjectInfo], prefixes: Sequence[str]
) -> None:
    """Add one page of the listing of directory uri `prefix` (it ends in "/")."""
    skip = len(prefix)
    for info in objects:
        name = info.uri[skip:].encode()
        if visible(name):
            builder.add(name, Kind.FILE, info.size, info.mtime_ns, info.version)
        elif name:  # without a name it is the marker of this very directory
            builder.hidden += 1
    for uri in prefixes:
        name = uri[skip:-1].encode()
        if visible(name):
            builder.add(name, Kind.DIRECTORY, 0, 0, "")
        else:
            builder.hidden += 1


def single(path: bytes, directory: int, name: bytes, info: ObjectInfo | None) -> Builder:
    """A listing of one name, learned without listing its directory; without info a directory."""
    builder = Builder(path, directory)
    if info is None:
        builder.add(name, Kind.DIRECTORY, 0, 0, "")
    else:
        builder.add(name, Kind.FILE, info.size, info.mtime_ns, info.version)
    return builder


def uri_of(prefix: str, path: bytes) -> str:
    """The uri of a path below the mounted prefix."""
    return prefix + path.decode()
