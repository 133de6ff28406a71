"""READDIR and READDIRPLUS: a listing as directory entries. Pure.

The offset of an entry is its index in the listing plus two, for "." and "..": a directory handle keeps its listing,
so offsets stay right while the directory changes.
"""

from collections.abc import Callable

from hotshard.mount import abi
from hotshard.mount.codec import Attr, dirent, entry_out
from hotshard.mount.directories import FOR_EVER_S
from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import Entry, Kind, Listing

_DOTS = (b".", b"..")
_NO_ENTRY = bytes(abi.ENTRY_OUT.size)  # node 0: a name without attributes


class NameReader:
    """Fills the replies to READDIR and READDIRPLUS."""

    def __init__(
        self,
        inodes: InodeTable,
        attr: Callable[[Entry], Attr],
        left_s: Callable[[Listing], float],
    ) -> None:
        self._inodes = inodes
        self._attr = attr
        self._left_s = left_s

    def read(self, listing: Listing, offset: int, size: int, *, plus: bool) -> bytes:
        """Entries from `offset` on, at most `size` bytes; with `plus`, the kernel is told of each."""
        parts: list[bytes] = []
        room = size
        valid_s = max(0.0, self._left_s(listing))
        head = abi.DIRENT.size + (abi.ENTRY_OUT.size if plus else 0)
        for at in range(offset, len(listing) + 2):
            name = _DOTS[at] if at < 2 else listing.name(at - 2)
            need = head + len(name) + -len(name) % 8
            if need > room:
                break
            room -= need
            if at < 2:
                parts.append((_NO_ENTRY if plus else b"") + dirent(1, at + 1, Kind.DIRECTORY, name))
                continue
            entry = listing.entry(at - 2)
            node = entry.node
            if plus:
                node = self._inodes.refer(listing, at - 2, entry)
                attr = self._attr(entry)
                if node != entry.node:
                    attr = attr._replace(ino=node)
                parts.append(entry_out(node, attr, valid_s, FOR_EVER_S))
            parts.append(dirent(node, at + 1, entry.kind, name))
        return b"".join(parts)
