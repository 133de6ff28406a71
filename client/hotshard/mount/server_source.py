"""The cache server of this node as the source of a mount, over the local socket.

Imported late: protobuf takes longer to load than everything else a reader needs to serve what it knows.
"""

from typing import Any

from hotshard.calls import Call, ListPage, Open, Opened, Page, Stat
from hotshard.core.errors import InternalError, ServerUnavailable
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import parse
from hotshard.direct.answers import answers
from hotshard.direct.fallback import PROBE_TIMEOUT_S, FallbackTransport
from hotshard.local import LocalTransport
from hotshard.mount.source import Names
from hotshard.transports import Transport

CALL_TIMEOUT_S = 20.0


class ServerSource:
    """Calls on the local socket; each borrows a conversation from the transport's pool."""

    def __init__(self, socket_path: str, transport: Transport | None = None) -> None:
        self._path = socket_path
        self._transport = transport or LocalTransport(socket_path, CALL_TIMEOUT_S)

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

    def figures(self) -> dict[str, float]:
        """None: every answer is the server's."""
        return {}

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


class FallbackSource(ServerSource):
    """The cache server, and while it is away the origin itself."""

    def __init__(self, socket_path: str, prefix: str, after_s: float) -> None:
        address = parse(prefix)
        origin = answers(CALL_TIMEOUT_S, address.key if address.scheme == "file" else "/")
        server = LocalTransport(socket_path, CALL_TIMEOUT_S)
        probe = LocalTransport(socket_path, PROBE_TIMEOUT_S, grace_s=0.0)
        fallback = FallbackTransport(server, probe, origin, after_s)
        super().__init__(socket_path, fallback)
        self._state = fallback.state

    def facts(self) -> dict[str, str]:
        """Whom we ask."""
        away = self._state.outage.direct
        return {"owner": "the origin: the cache server is away"} if away else super().facts()

    def figures(self) -> dict[str, float]:
        """What became of the server's absence."""
        return {
            "hotshard_mount_direct": float(self._state.outage.direct),
            "hotshard_mount_direct_calls_total": float(self._state.calls),
        }
