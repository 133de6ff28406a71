"""A server whose membership is a JSON file that the test writes: `python -m support.static_node`.

For tests that change views at a moment of their choosing; otherwise the real thing.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack
from typing import Any

from cache_server import __main__ as program
from cache_server.cluster.ports import PeerAddress, Placement
from cache_server.node import Node
from cache_server.store.store import Store
from cache_server.tasks import Tasks
from hotshard.core import placement

POLL_S = 0.05


class FilePlacement:
    """See the module."""

    def __init__(self, path: str, me: str) -> None:
        self._path = path
        self._written = -1.0
        self._table = self._previous = placement.build({})
        self._members: dict[str, PeerAddress] = {}
        self.me = me
        self.view_version = 0
        self.look()

    def look(self) -> None:
        written = os.stat(self._path).st_mtime
        if written == self._written:
            return
        self._written = written
        with open(self._path, encoding="utf-8") as file:
            view: dict[str, Any] = json.load(file)
        self._members = {m["id"]: PeerAddress(**m) for m in view["members"]}
        self._table = placement.build(dict.fromkeys(view["owners"], 100), slots=1024)
        self._previous = placement.build(dict.fromkeys(view["previous"], 100), slots=1024)
        self.view_version = view["version"]

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            self.look()

    def owners(self, digest: bytes) -> list[PeerAddress]:
        return [self._members[i] for i in self._table.owners(digest)]

    def previous_owners(self, digest: bytes) -> list[PeerAddress]:
        return [self._members[i] for i in self._previous.owners(digest) if i in self._members]


class StaticNode(Node):
    _cluster_name = "test"

    async def _placement(
        self, _stack: AsyncExitStack, _store: Store, tasks: Tasks
    ) -> Placement | None:
        found = FilePlacement(os.environ["MEMBERS_FILE"], os.environ["MEMBER_ID"])
        tasks.spawn(found.watch())
        return found


if __name__ == "__main__":
    setattr(program, "Node", StaticNode)  # noqa: B010 - the name is imported there
    sys.exit(program.main())
