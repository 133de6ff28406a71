"""Which inode numbers the kernel holds, how often it was told of each, and where their facts lie. Pure.

A node is one directory, or one version of one file: a new version is a new node, so nothing known of a
node ever changes. Its number is a hash of its identity (see `listing.identity`), moved on by one while
another identity holds that number; it is the same after a remount. The facts stay in the listing that
told of it; the table costs one dict line a node.

A listing is kept while it is the current one of its directory, while the kernel holds a node of it, or
while a directory handle reads it; then it is handed to `release`.
"""

from collections.abc import Callable, Iterable

from hotshard.mount import abi
from hotshard.mount.listing import Entry, Kind, Listing

_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1

ROOT_ENTRY = Entry(abi.ROOT, Kind.DIRECTORY, b"", 0, 0, "")


class InodeTable:
    """Nodes known to the kernel. Not thread-safe: its owner has a lock."""

    def __init__(self, release: Callable[[Listing], None]) -> None:
        self._release = release
        self._where: dict[int, int] = {}  # node -> serial << 32 | index
        self._listings: dict[int, Listing] = {}

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, node: int) -> bool:
        return node == abi.ROOT or node in self._where

    def entry(self, node: int) -> Entry | None:
        """What a node is; None: the kernel does not hold it."""
        where = self._where.get(node)
        if where is None:
            return ROOT_ENTRY if node == abi.ROOT else None
        return self._listings[where >> _INDEX_BITS].entry(where & _INDEX_MASK)

    def path(self, node: int) -> bytes | None:
        """The path of a node below the mount; of a directory with its final slash, of the root empty."""
        where = self._where.get(node)
        if where is None:
            return b"" if node == abi.ROOT else None
        listing = self._listings[where >> _INDEX_BITS]
        entry = listing.entry(where & _INDEX_MASK)
        slash = b"/" if entry.kind is Kind.DIRECTORY else b""
        return listing.path + entry.name + slash

    def place(self, node: int) -> tuple[int, bytes] | None:
        """(directory, name) of a node; None: the kernel does not hold it, or it is the root."""
        where = self._where.get(node)
        if where is None:
            return None
        listing = self._listings[where >> _INDEX_BITS]
        return listing.directory, listing.name(where & _INDEX_MASK)

    def listing(self, serial: int) -> Listing | None:
        """A kept listing by its serial."""
        return self._listings.get(serial)

    def install(self, listing: Listing) -> None:
        """Keep a listing; it takes over the counts of the nodes it tells of.

        Killed half-way, both listings have the count of a node; `restore` believes the newer one.
        """
        self._listings[listing.serial] = listing
        taken = [(i, node) for i, (node, _) in enumerate(listing.nodes()) if node in self._where]
        for index, node in taken:
            entry = listing.entry(index)
            same = self._probe(node, listing.path, entry)
            if same in self._where:
                self._move(same, listing, index)

    def make_current(self, listing: Listing, before: Listing | None) -> None:
        """Let a listing be what its directory holds."""
        listing.set_current(current=True)
        if before is not None:
            before.set_current(current=False)
            self._settle(before)

    def retire(self, listing: Listing) -> None:
        """A listing that is no directory's any more: let it go when nothing else needs it."""
        listing.set_current(current=False)
        self._settle(listing)

    def pin(self, listing: Listing) -> None:
        """A directory handle reads it."""
        listing.pins += 1

    def unpin(self, listing: Listing) -> None:
        """A directory handle was closed."""
        listing.pins -= 1
        self._settle(listing)

    def tell(self, listing: Listing, index: int, node: int, lookups: int) -> int:
        """Count one telling of an entry to the kernel, before it is told; gives its node.

        Args:
            listing: where the entry is.
            index: which it is.
            node: as its record says.
            lookups: as its record says.
        """
        place = listing.serial << _INDEX_BITS | index
        where = self._where.get(node)
        if where == place:
            listing.set_lookups(index, lookups + 1)
            return node
        if where is not None:
            return self._tell_elsewhere(listing, index)
        self._where[node] = place
        listing.set_lookups(index, 1)
        listing.live += 1
        return node

    def _tell_elsewhere(self, listing: Listing, index: int) -> int:
        """The same for an entry whose number is in use: by its own identity elsewhere, or by another."""
        entry = listing.entry(index)
        node = self._probe(entry.node, listing.path, entry)
        where = self._where.get(node)
        if where is None:
            listing.set_node(index, node)
            return self.tell(listing, index, node, 0)
        holder = self._listings[where >> _INDEX_BITS]
        at = where & _INDEX_MASK
        holder.set_lookups(at, holder.lookups(at) + 1)
        return node

    def forget(self, node: int, lookups: int) -> bool:
        """The kernel dropped that many tellings; True: it does not hold the node any more."""
        where = self._where.get(node)
        if where is None:
            return False
        listing = self._listings[where >> _INDEX_BITS]
        index = where & _INDEX_MASK
        left = listing.lookups(index) - lookups
        listing.set_lookups(index, max(0, left))
        if left > 0:
            return False
        del self._where[node]
        listing.live -= 1
        self._settle(listing)
        return True

    def restore(self, listings: Iterable[Listing]) -> None:
        """Take over what another process left: an empty table and its listings, oldest first."""
        for listing in listings:
            self._listings[listing.serial] = listing
            counted = [(i, n) for i, (n, lookups) in enumerate(listing.nodes()) if lookups]
            listing.live = len(counted)
            for index, node in counted:
                older = self._where.get(node)
                if older is not None:
                    holder = self._listings[older >> _INDEX_BITS]
                    holder.set_lookups(older & _INDEX_MASK, 0)
                    holder.live -= 1
                self._where[node] = listing.serial << _INDEX_BITS | index

    def settle_all(self) -> None:
        """Let go of every listing that nothing needs; for after `restore`, when the pins are known."""
        for listing in list(self._listings.values()):
            self._settle(listing)

    def kept(self) -> Iterable[Listing]:
        """Every listing in use."""
        return self._listings.values()

    def current(self) -> dict[int, Listing]:
        """The current listing of each directory that has one."""
        return {one.directory: one for one in self._listings.values() if one.current}

    def _probe(self, node: int, path: bytes, entry: Entry) -> int:
        """The number that this identity has, or would get: the first free one from its hash on."""
        while (where := self._where.get(node)) is not None:
            holder = self._listings[where >> _INDEX_BITS]
            other = holder.entry(where & _INDEX_MASK)
            if (
                other.name == entry.name
                and other.version == entry.version
                and other.kind is entry.kind
                and holder.path == path
            ):
                return node
            node += 1
        return node

    def _move(self, node: int, listing: Listing, index: int) -> None:
        where = self._where[node]
        holder = self._listings[where >> _INDEX_BITS]
        at = where & _INDEX_MASK
        if holder is listing:
            return
        listing.set_node(index, node)
        listing.set_lookups(index, holder.lookups(at))
        listing.live += 1
        self._where[node] = listing.serial << _INDEX_BITS | index
        holder.set_lookups(at, 0)
        holder.live -= 1
        self._settle(holder)

    def _settle(self, listing: Listing) -> None:
        if listing.live or listing.pins or listing.current:
            return
        if self._listings.pop(listing.serial, None) is not None:
            self._release(listing)
