"""When to stop waiting for a cache server and read the origin instead, and when to go back. Pure.

A server that does not answer is waited for, as it may just be restarting. After `after_s` calls go to the
origin, and one of them every `PROBE_PERIOD_S` looks whether the server is there again. Whatever it
answers ends the outage.
"""

PROBE_PERIOD_S = 2.0


class Outage:
    """What is known of a server's absence. Safe for threads: a lost update only costs another probe."""

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._since_s: float | None = None
        self._probe_at_s = 0.0
        self.direct = False
        """Calls go to the origin."""

    def lost(self, now_s: float) -> bool:
        """A call found no server. True: this is when calls begin to go to the origin."""
        if self._since_s is None:
            self._since_s = now_s
        if self.direct or now_s - self._since_s < self._after_s:
            return False
        self.direct = True
        self._probe_at_s = now_s + PROBE_PERIOD_S
        return True

    def answered(self) -> bool:
        """The server has answered. True: until now calls went to the origin."""
        ended, self.direct = self.direct, False
        self._since_s = None
        return ended

    def probe_due(self, now_s: float) -> bool:
        """Whether this caller is to look for the server; nobody else is told so for a while."""
        if not self.direct or now_s < self._probe_at_s:
            return False
        self._probe_at_s = now_s + PROBE_PERIOD_S
        return True
