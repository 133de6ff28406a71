"""Small blocks that a member owns, begun at the origin without a task, as on a node of its own.

Only while nothing speaks against the origin: what fails, or is not here soon, goes on as a task, within
the time that a guarded origin gets, and with the help of other members where the asker may have it
(cache_server.fill).
"""

import math
from functools import partial

from cache_server.cluster.origin import GuardedOrigin
from cache_server.origins.origin import Fetched, Interrupted, Landed, QuickOrigin, Target, Want
from hotshard.core.errors import OriginUnavailable

QUICK_S = 2.0
"""What is not here by then is not quick."""


class GuardedQuick:
    """A QuickOrigin that leaves one alone that is away. Use from the event loop only."""

    def __init__(self, inner: QuickOrigin, guarded: GuardedOrigin) -> None:
        self._inner = inner
        self._guarded = guarded

    def begin_fetch(
        self, want: Want, target: Target, landed: Landed, limit_s: float = math.inf
    ) -> bool:
        """Begin a fetch of what is ours (QuickOrigin)."""
        if not self._guarded.is_well:
            return False
        landed = partial(self._landed, want, target, landed)
        return self._inner.begin_fetch(want, target, landed, min(limit_s, QUICK_S))

    def _landed(
        self, want: Want, target: Target, landed: Landed, outcome: Fetched | Exception
    ) -> None:
        if isinstance(outcome, Interrupted):
            outcome = Interrupted(partial(self._guarded.within_time, want, outcome.go_on))
        elif isinstance(outcome, OriginUnavailable):
            outcome = Interrupted(partial(self._guarded.fetch, want, target))
        elif isinstance(outcome, Fetched):
            self._guarded.answered()
        landed(outcome)
