"""A source that is made by the first call to it, so that a reader serves before that is loaded."""

import os
import threading

from hotshard.calls import Opened
from hotshard.core.objects import ObjectInfo
from hotshard.mount.config import Plan
from hotshard.mount.device import FSTYPE, mount_points
from hotshard.mount.source import DirectorySource, Names, Source


def preload() -> None:
    """Load now what the first call would load: for a reader that has time to."""
    from hotshard.mount import server_source  # noqa: F401


class LateSource:
    """The source a plan names."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._made: Source | None = None

    def stat(self, uri: str) -> ObjectInfo:
        """See Source."""
        return self._source().stat(uri)

    def names(self, prefix: str, token: str, page_size: int) -> Names:
        """See Source."""
        return self._source().names(prefix, token, page_size)

    def open(self, info: ObjectInfo, offset: int, length: int) -> Opened:
        """See Source."""
        return self._source().open(info, offset, length)

    def facts(self) -> dict[str, str]:
        """See Source; nothing before the first other call."""
        return self._made.facts() if self._made is not None else {}

    def figures(self) -> dict[str, float]:
        """See Source; none before the first other call."""
        return self._made.figures() if self._made is not None else {}

    def close(self) -> None:
        """See Source."""
        if self._made is not None:
            self._made.close()

    def _source(self) -> Source:
        with self._lock:
            if self._made is None:
                self._made = make_source(self._plan)
            return self._made


def make_source(plan: Plan) -> Source:
    """The source a plan names.

    Raises:
        ServerUnavailable: it is not known where to look for a cache server.
    """
    if plan.directory is not None:
        return DirectorySource(plan.directory, plan.uri)
    from hotshard.mount.server_source import FallbackSource, ServerSource

    options = plan.options
    place = server_socket(options.address)
    if options.direct == "never" or _on_a_mount_of_ours(plan.uri):
        return ServerSource(place)
    return FallbackSource(place, plan.uri, options.direct_after_s)


def server_socket(address: str | None) -> str:
    """Where the cache server of this node listens.

    Raises:
        ServerUnavailable: it is not known where to look for one.
        InvalidRequest: the address is not one of this node.
    """
    from hotshard.core.errors import InvalidRequest, ServerUnavailable
    from hotshard.options import Options, resolve

    try:
        kind, place = resolve(Options(address), os.environ)
    except ServerUnavailable as error:  # its own words offer host:port, which serves no mount
        raise ServerUnavailable(
            "no local socket of a cache server is known; start one with `hotshard serve`,"
            " or give -o address=unix:///path/to/local.sock"
        ) from error
    if kind != "unix":
        raise InvalidRequest(
            f"a mount needs the local socket of a cache server (-o address=unix:///path), not {place}"
        )
    return place


def _on_a_mount_of_ours(uri: str) -> bool:
    """Whether what the server sees as files is here a mount that may be this very one.

    Reading it would wait for ourselves. Paths are compared as text: looking would be reading already.
    """
    if not uri.startswith("file://"):
        return False
    path = uri.removeprefix("file://")
    above = [p for p in mount_points() if path.startswith(p.path.rstrip("/") + "/")]
    return bool(above) and max(above, key=lambda p: len(p.path)).fstype == FSTYPE
