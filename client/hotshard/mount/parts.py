"""The parts of a mounted file system, and what every handler asks of them. Locked by `directories.lock`."""

import errno
from dataclasses import dataclass

from hotshard.core.objects import ObjectInfo
from hotshard.mount import tree
from hotshard.mount.answers import Refusal
from hotshard.mount.config import Plan
from hotshard.mount.contents import Contents
from hotshard.mount.directories import Directories
from hotshard.mount.handles import Handle, HandleTable, Mode, TooManyOpen
from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import Entry
from hotshard.mount.source import Source


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file system is made of."""

    plan: Plan
    source: Source
    inodes: InodeTable
    handles: HandleTable
    directories: Directories
    contents: Contents

    def entry(self, node: int) -> Entry:
        """What a node is.

        Raises:
            Refusal: ESTALE, nobody told the kernel of it.
        """
        entry = self.inodes.entry(node)
        if entry is None:
            raise Refusal(errno.ESTALE)
        return entry

    def path(self, node: int) -> bytes:
        """Its path below the mount; see `entry`."""
        path = self.inodes.path(node)
        if path is None:
            raise Refusal(errno.ESTALE)
        return path

    def info(self, node: int) -> ObjectInfo:
        """The version of an object that a file is; see `entry`."""
        entry = self.entry(node)
        uri = tree.uri_of(self.plan.uri, self.path(node))
        return ObjectInfo(uri, entry.version, entry.size, entry.mtime_ns)

    def record(self, unique: int, node: int, mode: Mode, backing_id: int = 0) -> Handle:
        """A handle for the request of that number.

        Raises:
            Refusal: ENFILE.
        """
        try:
            return self.handles.open(unique, node, mode, backing_id)
        except TooManyOpen as error:
            raise Refusal(errno.ENFILE) from error

    def close(self, fh: int) -> Handle | None:
        """Drop a handle; of a directory, also its hold on the listing."""
        handle = self.handles.close(fh)
        if handle is not None and handle.mode is Mode.DIRECTORY:
            listing = self.inodes.listing(handle.node)
            if listing is not None:
                self.inodes.unpin(listing)
        return handle
