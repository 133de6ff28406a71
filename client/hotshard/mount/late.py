"""A source that is made by the first call to it, so that a reader serves before that is loaded."""

import os
import threading

from hotshard.calls import Opened
from hotshard.core.objects import ObjectInfo
from hotshard.mount.config import Plan
from hotshard.mount.source import DirectorySource, Names, Source


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
        ServerUnavailable: there is no cache server where one was looked for.
    """
    if plan.directory is not None:
        return DirectorySource(plan.directory, plan.uri)
    from hotshard.mount.server_source import ServerSource
    from hotshard.options import Options, resolve

    kind, place = resolve(Options(plan.options.address), os.environ)
    if kind != "unix":
        from hotshard.core.errors import InvalidRequest

        raise InvalidRequest(f"a mount needs the local socket of a cache server, not {place}")
    return ServerSource(place)
