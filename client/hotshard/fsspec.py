"""hotshard for everything that reads through fsspec: pandas, Dask, Hugging Face datasets, zarr.

    fsspec.open("hotshard://s3/bucket/key")     # the origin's scheme is the first part of the path
    fsspec.register_implementation("s3", "hotshard.fsspec.S3FileSystem", clobber=True)
    fsspec.open("s3://bucket/key")              # in the place of s3fs, with its names

Read-only: whatever would change something raises OSError with EROFS, as it would on a mount. Needs
hotshard[fsspec].
"""

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

try:
    from fsspec.spec import AbstractFileSystem
except ImportError as error:
    raise ImportError(
        "hotshard.fsspec needs fsspec, which is not installed: pip install 'hotshard[fsspec]'"
    ) from error

from hotshard.calls import Prefix
from hotshard.client import Client, connect
from hotshard.core.errors import InvalidRequest, NotFound
from hotshard.core.objects import ObjectInfo

SCHEMES = ("s3", "file")


class HotshardFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A read-only file system over a hotshard client; paths are `s3/bucket/key`, `file/dir/name`.

    Args:
        address: as of `hotshard.connect`.
        client_options: further arguments of `hotshard.connect`.
    """

    protocol: Any = "hotshard"
    root_marker = ""
    scheme = ""
    """The one scheme that paths are of, without naming it."""

    def __init__(
        self,
        address: str | None = None,
        client_options: dict[str, Any] | None = None,
        **storage_options: Any,
    ) -> None:
        super().__init__(**storage_options)
        self._address = address
        self._client_options = client_options or {}
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The client; begun at the first use, because file systems are often made to be pickled."""
        if self._client is None:
            self._client = connect(self._address, **self._client_options)
        return self._client

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        text = str(path).removeprefix("hotshard://")
        for scheme in SCHEMES:
            if text.startswith(f"{scheme}://"):
                rest = text[len(scheme) + 3 :]
                text = rest if cls.scheme else f"{scheme}/{rest.lstrip('/')}"
        return text.rstrip("/")

    def uri(self, path: str) -> str:
        """The address behind a path.

        Raises:
            InvalidRequest: it does not begin with the scheme of an origin.
        """
        scheme, rest = self.scheme, self._strip_protocol(path)
        if not scheme:
            scheme, _, rest = rest.partition("/")
        if scheme not in SCHEMES or not rest:
            raise InvalidRequest(f"{path!r} names no origin: use s3/bucket/key or file/path")
        return f"{scheme}://{rest}" if scheme != "file" else f"file:///{rest}"

    def path(self, uri: str) -> str:
        """The path of an address."""
        return str(self._strip_protocol(uri))

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Describe an object, or a prefix as a directory."""
        uri = self.uri(path)
        try:
            return self._entry(self.client.stat(uri))
        except (NotFound, InvalidRequest) as error:
            if next(self.client.list(uri.rstrip("/") + "/"), None) is None:
                raise NotFound(f"{uri} does not exist", uri=uri) from error
        return self._entry(Prefix(uri + "/"))

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:  # noqa: FBT001, FBT002
        """What lies directly below a path."""
        uri = self.uri(path)
        entries = [
            self._entry(entry)
            for entry in self.client.list(uri.rstrip("/") + "/", recursive=False)
            if entry.uri.rstrip("/") != uri.rstrip("/")
        ]
        if not entries:
            entries = [self.info(path)]
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,  # noqa: FBT001, FBT002
        detail: bool = False,  # noqa: FBT001, FBT002
        **options: Any,
    ) -> Any:
        """Every object below a path, from one listing."""
        if maxdepth is not None or withdirs or options:
            return super().find(path, maxdepth, withdirs, detail, **options)
        found = {entry["name"]: entry for entry in self._objects(path)}
        if not found:
            entry = self.info(path)
            found = {entry["name"]: entry} if entry["type"] == "file" else {}
        return found if detail else sorted(found)

    def _objects(self, path: str) -> Iterator[dict[str, Any]]:
        for entry in self.client.list(self.uri(path).rstrip("/") + "/"):
            if isinstance(entry, ObjectInfo) and not entry.uri.endswith("/"):
                yield self._entry(entry)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **_: Any
    ) -> bytes:
        """The bytes of an object; negative numbers count from its end."""
        offset, length = self._range(path, start, end)
        return self.client.read(self.uri(path), offset, length)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,  # noqa: ARG002
        on_error: str = "return",
        **_: Any,
    ) -> list[Any]:
        """Many ranges in one go, in the order asked; `max_gap` is of no use, they need no merging."""
        if not isinstance(starts, Sequence):
            starts = [starts] * len(paths)
        if not isinstance(ends, Sequence):
            ends = [ends] * len(paths)
        asks = [
            (self.uri(path), *self._range(path, start, end))
            for path, start, end in zip(paths, starts, ends, strict=True)
        ]
        return self.client.read_many(asks, return_errors=on_error != "raise")

    def _range(self, path: str, start: int | None, end: int | None) -> tuple[int, int | None]:
        start = start or 0
        if start < 0 or (end is not None and end < 0):
            size = self.client.stat(self.uri(path)).size
            start = max(0, size + start) if start < 0 else start
            end = size + end if end is not None and end < 0 else end
        return start, None if end is None else max(0, end - start)

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **options: Any,
    ) -> Any:
        """A file object; fsspec's own caching is not wanted, the cache is below."""
        if mode not in ("rb", "r", "rt"):
            self._refuse(path)
        return super().open(path, mode, block_size, cache_options, compression, **options)

    def _open(self, path: str, **_: Any) -> Any:
        return self.client.open(self.uri(path))

    def _refuse(self, path: Any, *_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    # Some of these do nothing in fsspec, which reads like a success.
    mkdir = makedirs = rmdir = touch = pipe_file = _refuse
    rm = rm_file = mv = copy = cp_file = put_file = _refuse

    def created(self, path: str) -> Any:
        """There is only one time: see `modified`."""
        return self.modified(path)

    def modified(self, path: str) -> Any:
        """When the object was written at the origin."""
        from datetime import UTC, datetime

        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def _entry(self, entry: ObjectInfo | Prefix) -> dict[str, Any]:
        name = self.path(entry.uri)
        if isinstance(entry, Prefix):
            return {"name": name, "size": 0, "type": "directory"}
        return {
            "name": name,
            "size": entry.size,
            "type": "file",
            "mtime": entry.mtime_ns / 1e9,
            "version": entry.version,
            "ETag": entry.version,
        }


class S3FileSystem(HotshardFileSystem):
    """The same with the names of s3fs: `s3://bucket/key`, `bucket/key`."""

    protocol: Any = "s3"
    scheme = "s3"
