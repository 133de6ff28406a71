"""What the cache answers with: open files, and reports about objects. Data only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cache_server.store.shard import ShardKey
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


@dataclass(frozen=True, slots=True)
class FileExtent:
    """[object_offset, object_offset + length) of the object lies in `file` at `file_offset`."""

    object_offset: int
    length: int
    file: OpenFile
    file_offset: int
    sealed: bool
    """The file is a whole sealed shard: all of it stays valid for as long as it is held open."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to an open."""

    info: ObjectInfo
    extents: tuple[FileExtent, ...]
    """In object order, without gaps, the first one holding the offset asked for. May end before the
    range does, but is never empty for a range that has bytes. Empty for an empty range."""
    lease_s: float

    def covered(self, offset: int, length: int) -> int:
        """How many bytes of [offset, offset + length) this has."""
        if not self.extents:
            return 0
        last = self.extents[-1]
        return max(0, min(last.object_offset + last.length, offset + length) - offset)

    def beginning(self, extents_max: int) -> "Opened":
        """The same, with so many extents at most."""
        if len(self.extents) <= extents_max:
            return self
        return replace(self, extents=self.extents[:extents_max])


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for [offset, offset + length) of one object."""

    uri: str
    version: str
    """Empty: the current one."""
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ShardState:
    """Where one shard stands."""

    key: ShardKey
    state: str
    """ "absent", "partial" or "sealed"."""
    present_bytes: int
    path: str
    """Of its file, if sealed; of the cache dir, while filling."""
    pinned: bool
    verified: bool
    blocks: int = 1
    present: Sequence[range] = ()
    """The blocks of a partial shard that are here."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of an object."""

    info: ObjectInfo
    origin: str
    metadata_age_s: float
    lease_s: float
    shards: list[ShardState]
    last_miss: str
