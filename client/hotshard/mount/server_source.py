"""The cache server of this node as the source of a mount, over the local socket.

Imported late: protobuf takes longer to load than everything else a reader needs to serve what it knows.
"""

from typing import Any

from hotshard.calls import Call, ListPage, Open, Opened, Page, Stat
from hotshard.core.errors import InternalError, ServerUnavailable
from hotshard.core.objects import ObjectInfo
from hotshard.local import LocalTransport
from hotshard.mount.source import Names

CALL_TIMEOUT_S = 20.0


class ServerSource:
    """Calls on the local socket; each borrows a conversation from the transport's pool."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._transport = LocalTransport(socket_path, CALL_TIMEOUT_S)

    def check(self) -> None:
        """Find out whether a server is there.

        Raises:
            ServerUnavailable: none is.
        """
        self._transport.check()

    def stat(self, uri: str) -> ObjectInfo:
        """Describe the current version of an object."""
        info: ObjectInfo = self._ask(Stat(uri))
        return info

    def names(self, prefix: str, token: str, page_size: int) -> Names:
        """A page of a directory."""
        page: Page = self._ask(ListPage(prefix, recursive=False, token=token, page_size=page_size))
        return Names(page.objects, [fold.uri for fold in page.prefixes], page.next_token)

    def open(self, info: ObjectInfo, offset: int, length: int) -> Opened:
        """Open files with a range of exactly that version."""
        opened: Opened = self._ask(Open(info.uri, info.version, offset, length))
        if opened.info.version != info.version:
            raise InternalError(f"{info.uri}: the server gave another version than asked for")
        return opened

    def facts(self) -> dict[str, str]:
        """Whom we ask."""
        return {"owner": self._path}

    def close(self) -> None:
        """Hang up."""
        self._transport.hang_up()

    def _ask(self, call: Call) -> Any:
        line = self._transport.line()
        try:
            return line.wait(line.submit(call))
        except OSError as error:
            if isinstance(error, ConnectionError) and not isinstance(error, ServerUnavailable):
                raise ServerUnavailable(f"{self._path}: {error.strerror}") from error
            raise
        finally:
            line.end()
