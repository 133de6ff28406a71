"""READDIR and READDIRPLUS: a listing as directory entries, and what stat shows of each. Pure.

The offset of an entry is its index in the listing plus two, for "." and "..": a directory handle keeps
its listing, so offsets stay right while the directory changes.

A walk over a million files goes through the loop in `NameReader.read`, so that is written for speed: one
unpack, one pack and no objects for each entry.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hotshard.mount import abi
from hotshard.mount.codec import FOR_EVER_S, Attr, dirent, split_s
from hotshard.mount.config import MountOptions
from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import Entry, Kind, Listing

_DOTS = (b".", b"..")
_NO_ENTRY = bytes(abi.ENTRY_OUT.size)  # node 0: a name without attributes
_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Look:
    """What all files of a mount have in common."""

    file_mode: int
    directory_mode: int
    uid: int
    gid: int
    born_ns: int
    """The mtime of directories."""

    @classmethod
    def of(cls, options: MountOptions, born_ns: int) -> "Look":
        """As the options say."""
        return cls(
            file_mode=0o100444 & ~options.umask,
            directory_mode=0o040555 & ~options.umask,
            uid=options.uid,
            gid=options.gid,
            born_ns=born_ns,
        )

    def attr(self, entry: Entry) -> Attr:
        """What stat shows of an entry."""
        if entry.kind is Kind.FILE:
            mode, mtime_ns, links = self.file_mode, entry.mtime_ns, 1
        else:
            mode, mtime_ns, links = self.directory_mode, self.born_ns, 2
        return Attr(entry.node, entry.size, mtime_ns, mode, self.uid, self.gid, links)


class NameReader:
    """Fills the replies to READDIR and READDIRPLUS."""

    def __init__(self, inodes: InodeTable, look: Look, left_s: Callable[[Listing], float]) -> None:
        self._inodes = inodes
        self._look = look
        self._left_s = left_s

    def read(self, listing: Listing, offset: int, size: int, *, plus: bool) -> bytes:
        """Entries from `offset` on, at most `size` bytes; with `plus`, the kernel is told of each."""
        out = bytearray(size)
        at = 0
        while offset < 2:
            dot = (_NO_ENTRY if plus else b"") + dirent(
                1, offset + 1, Kind.DIRECTORY, _DOTS[offset]
            )
            if at + len(dot) > size:
                return bytes(out[:at])
            out[at : at + len(dot)] = dot
            at += len(dot)
            offset += 1
        fill = self._fill_plus if plus else self._fill
        return bytes(memoryview(out)[: fill(listing, offset, out, at)])

    def _fill(self, listing: Listing, offset: int, out: bytearray, at: int) -> int:
        pack, head, size = abi.DIRENT.pack_into, abi.DIRENT.size, len(out)
        for record, name in listing.rows(offset - 2, (size - at) // (head + 8)):
            need = head + len(name) + -len(name) % 8
            if at + need > size:
                break
            offset += 1
            pack(out, at, record[0], offset, len(name), record[7])
            out[at + head : at + head + len(name)] = name
            at += need
        return at

    def _fill_plus(self, listing: Listing, offset: int, out: bytearray, at: int) -> int:
        look, tell, pack = self._look, self._inodes.tell, abi.ENTRY_DIRENT.pack_into
        head, size = abi.ENTRY_DIRENT.size, len(out)
        entry_s, entry_ns = split_s(max(0.0, self._left_s(listing)))
        attr_s = int(FOR_EVER_S)
        born_s, born_ns = divmod(look.born_ns, _NANOS)
        index = offset - 2
        for record, name in listing.rows(index, (size - at) // (head + 8)):
            node, length, mtime_ns, lookups, _, _, _, kind = record
            need = head + len(name) + -len(name) % 8
            if at + need > size:
                break
            node = tell(listing, index, node, lookups)
            if kind == 8:
                mtime_s, nanos = divmod(mtime_ns, _NANOS) if mtime_ns > 0 else (0, 0)
                mode, links = look.file_mode, 1
            else:
                mtime_s, nanos, mode, links = born_s, born_ns, look.directory_mode, 2
            index += 1
            pack(
                out, at,
                node, 0, entry_s, attr_s, entry_ns, 0,
                node, length, (length + 511) // 512, mtime_s, mtime_s, mtime_s, nanos, nanos, nanos,
                mode, links, look.uid, look.gid, 0, 4096, 0,
                node, index + 2, len(name), kind,
            )  # fmt: skip
            out[at + head : at + head + len(name)] = name
            at += need
        return at
