"""When to try again: exponential backoff with full jitter, and a budget that stops retry storms.

Full jitter as in M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015). The retry
budget is a token bucket fed by successes, as in gRPC's retry throttling (gRFC A6): when most requests
fail, retries stop and errors surface at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """A retry schedule."""

    attempts: int = 5
    """Tries in all, the first included."""
    initial_s: float = 0.1
    """Upper bound of the wait before the second try; doubles with each further one."""
    cap_s: float = 5.0

    def delay_s(
        self, failures: int, random_unit: float, retry_after_s: float = 0.0
    ) -> float | None:
        """Seconds to wait after the `failures`-th failure (from 1); None: give up.

        Args:
            failures: how many tries have failed by now.
            random_unit: a random number in [0, 1).
            retry_after_s: what the other side asked for; never waits less.
        """
        if failures >= self.attempts:
            return None
        window_s = min(self.cap_s, self.initial_s * 2.0 ** (failures - 1))
        return max(retry_after_s, window_s * random_unit)


class RetryBudget:
    """Tokens for retries: each costs 1, each success gives back `ratio`, at most `tokens_max` are kept.

    Retries are allowed while more than half of the tokens are left.
    """

    def __init__(self, tokens_max: float = 100.0, ratio: float = 0.1) -> None:
        self._max = tokens_max
        self._ratio = ratio
        self._tokens = tokens_max

    def succeeded(self) -> None:
        """Note a success."""
        self._tokens = min(self._max, self._tokens + self._ratio)

    def try_spend(self) -> bool:
        """Take a token for a retry; False: the budget is used up."""
        allowed = self._tokens > self._max / 2
        self._tokens = max(0.0, self._tokens - 1.0)
        return allowed
