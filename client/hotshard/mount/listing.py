"""The entries of one directory, packed into a buffer: what a listing said, and what the kernel holds of it.

A listing is a header, the path of the directory, `count` fixed records sorted by name, and their texts
(name, then version). All but three things are written once: the lookup count and the node of a record,
and the flag that makes a listing the current one of its directory. The buffer is shared memory in a
mount, so a listing outlives the process that made it; every change is a single store, ordered so that a
process killed between two of them leaves counts too high (a small leak), never too low.

About 40 bytes an entry beside its name and version.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import xxhash

if TYPE_CHECKING:
    from mmap import mmap

    Buffer = bytearray | mmap

MAGIC = 0x4C535348
FREE = 0x45455246
NAME_BYTES_MAX = 255
_NODE_MASK = (1 << 63) - 1  # programs exist that hold an inode number in a signed integer
_CURRENT = 1

# magic flags length serial directory fetched_ns bytes | count path_bytes hidden padding
_HEADER = Struct("<IIQQQqQIIII")
_RECORD = Struct("<QQqIIHHI")  # node size mtime_ns | lookups text name_bytes version_bytes kind
_TEXT = Struct("<IH")
_FACTS = Struct("<QqB")  # size mtime_ns kind, then the version
_U32 = Struct("<I")
_U64 = Struct("<Q")
_FLAGS_AT = 4
_LOOKUPS_AT = 24
_TEXT_AT = 28


class Kind(IntEnum):
    """What a name stands for; the values are those of dirent.d_type."""

    DIRECTORY = 4
    FILE = 8


class Entry(NamedTuple):
    """One name of a directory."""

    node: int
    kind: Kind
    name: bytes
    size: int
    mtime_ns: int
    version: str


NodeHash = Callable[[bytes], int]


def node_hash(identity: bytes) -> int:
    """The inode number that an identity wants; the table moves it on if another holds it."""
    return xxhash.xxh3_64_intdigest(identity)


def identity(path: bytes, kind: int, name: bytes, version: bytes) -> bytes:
    """What an inode is: a directory by its path, a file by its path and version."""
    if kind == Kind.DIRECTORY:
        return b"%b%b/" % (path, name)
    return b"%b%b\0%b" % (path, name, version)


class Builder:
    """Collects the entries of one directory as pages of a listing arrive, in any order."""

    def __init__(self, path: bytes, directory: int) -> None:
        self.path = path
        self.directory = directory
        self.hidden = 0
        """Keys that no path can name: counted, so that nobody wonders where they are."""
        self._names: list[bytes] = []
        self._facts: list[
            bytes
        ] = []  # (size, mtime, kind, version) packed: a third of the objects' size

    def __len__(self) -> int:
        return len(self._names)

    def add(self, name: bytes, kind: Kind, size: int, mtime_ns: int, version: str) -> None:
        """One entry. Two of one name: the directory wins, as the file would make it unreachable."""
        self._names.append(name)
        self._facts.append(_FACTS.pack(size, mtime_ns, kind) + version.encode())

    def pack(self, serial: int, fetched_ns: int, hashed: NodeHash = node_hash) -> bytes:
        """The packed listing."""
        records = bytearray()
        text = bytearray()
        total = 0
        for name, facts in self._in_order():
            size, mtime_ns, kind = _FACTS.unpack_from(facts)
            version = facts[_FACTS.size :]
            node = hashed(identity(self.path, kind, name, version)) & _NODE_MASK
            at = len(text)
            records += _RECORD.pack(
                max(node, 2), size, mtime_ns, 0, at, len(name), len(version), kind
            )
            text += name + version
            total += size
        count = len(records) // _RECORD.size
        body = self.path + bytes(-len(self.path) % 8)
        length = _HEADER.size + len(body) + len(records) + len(text)
        header = _HEADER.pack(
            MAGIC, 0, length, serial, self.directory, fetched_ns, total, count,
            len(self.path), self.hidden, 0,
        )  # fmt: skip
        return b"".join((header, body, records, text))

    def _in_order(self) -> Iterator[tuple[bytes, bytes]]:
        names = self._names
        order: list[int] | range = range(len(names))
        if any(a >= b for a, b in pairwise(names)):
            # Directories first among equals.
            order = sorted(order, key=lambda i: (names[i], self._facts[i][16] != Kind.DIRECTORY))
        last = None
        for i in order:
            if names[i] == last:
                self.hidden += 1
                continue
            last = names[i]
            yield last, self._facts[i]


class Listing:
    """A packed listing in a buffer. Entries are addressed by their index in name order."""

    __slots__ = (
        "_base",
        "_records",
        "_text",
        "buffer",
        "bytes",
        "count",
        "directory",
        "fetched_ns",
        "hidden",
        "length",
        "live",
        "path",
        "pins",
        "serial",
    )

    def __init__(self, buffer: "Buffer", base: int) -> None:
        header = _HEADER.unpack_from(buffer, base)
        magic, _, length, serial, directory, fetched_ns, total, count, path_bytes, hidden, _ = (
            header
        )
        if magic != MAGIC:
            raise ValueError(f"no listing at {base}")
        self.buffer = buffer
        self._base = base
        self.length: int = length
        self.serial: int = serial
        self.directory: int = directory
        self.fetched_ns: int = fetched_ns
        self.bytes: int = total
        self.count: int = count
        self.hidden: int = hidden
        start = base + _HEADER.size
        self.path = bytes(buffer[start : start + path_bytes])
        self._records: int = start + path_bytes + -path_bytes % 8
        self._text: int = self._records + count * _RECORD.size
        self.live = 0
        """Entries with a lookup count; kept by the inode table."""
        self.pins = 0
        """Open directory handles; kept by the inode table."""

    def __len__(self) -> int:
        return self.count

    @property
    def base(self) -> int:
        """Where it lies in its buffer."""
        return self._base

    @property
    def current(self) -> bool:
        """Whether it is what its directory holds now."""
        flags = _U32.unpack_from(self.buffer, self._base + _FLAGS_AT)[0]
        return bool(flags & _CURRENT)

    def set_current(self, *, current: bool) -> None:
        """Make it the current one of its directory, or an old one."""
        flags = _CURRENT if current else 0
        _U32.pack_into(self.buffer, self._base + _FLAGS_AT, flags)

    def entry(self, index: int) -> Entry:
        """The entry at an index."""
        node, size, mtime_ns, _, text, name_bytes, version_bytes, kind = _RECORD.unpack_from(
            self.buffer,
            self._records + index * _RECORD.size,
        )
        start = self._text + text
        raw = self.buffer[start : start + name_bytes + version_bytes]
        kind = Kind.DIRECTORY if kind == 4 else Kind.FILE  # cheaper than Kind(kind)
        return Entry(node, kind, bytes(raw[:name_bytes]), size, mtime_ns, raw[name_bytes:].decode())

    def name(self, index: int) -> bytes:
        """The name at an index."""
        at = self._records + index * _RECORD.size + _TEXT_AT
        text, name_bytes = _TEXT.unpack_from(self.buffer, at)
        start = self._text + text
        return bytes(self.buffer[start : start + name_bytes])

    def rows(self, start: int, count: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
        """(record, name) of at most `count` entries; a record has the fields of `_RECORD`."""
        stop = min(start + count, self.count)
        if start >= stop:
            return
        at = self._records + start * _RECORD.size
        raw = bytes(self.buffer[at : self._records + stop * _RECORD.size])
        first = _RECORD.unpack_from(raw)[4]
        last = _RECORD.unpack_from(raw, len(raw) - _RECORD.size)
        text = bytes(self.buffer[self._text + first : self._text + last[4] + last[5]])
        for record in _RECORD.iter_unpack(raw):
            begin = record[4] - first
            yield record, text[begin : begin + record[5]]

    def find(self, name: bytes) -> int:
        """The index of a name, or -1."""
        index = bisect_left(range(self.count), name, key=self.name)
        return index if index < self.count and self.name(index) == name else -1

    def nodes(self) -> Iterator[tuple[int, int]]:
        """(node, lookups) of each entry, in order."""
        raw = self.buffer[self._records : self._text]
        return ((record[0], record[3]) for record in _RECORD.iter_unpack(raw))

    def lookups(self, index: int) -> int:
        """How often the kernel was told of this entry, less what it forgot."""
        at = self._records + index * _RECORD.size + _LOOKUPS_AT
        count: int = _U32.unpack_from(self.buffer, at)[0]
        return count

    def set_lookups(self, index: int, lookups: int) -> None:
        """Store the count."""
        at = self._records + index * _RECORD.size + _LOOKUPS_AT
        _U32.pack_into(self.buffer, at, lookups)

    def set_node(self, index: int, node: int) -> None:
        """Give an entry another node, before the kernel has heard of it."""
        at = self._records + index * _RECORD.size
        _U64.pack_into(self.buffer, at, node)
