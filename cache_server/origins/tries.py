"""Requests to an origin: how each try is counted, and when another one is made.

Tries, waits and the retry budget are of the origin as a whole, whatever carries its requests.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cache_server.origins.origin import OnRequest
from cache_server.origins.pace import Pace
from cache_server.origins.transfer import TargetFailed
from cache_server.scope import step
from hotshard.core.backoff import Backoff, RetryBudget
from hotshard.core.errors import HotshardError, OriginUnavailable, code_name

_RETRY_AFTER_S_MAX = 30.0  # who asks for a longer pause is down; say so at once
log = logging.getLogger(__name__)
T = TypeVar("T")


class Transient(Exception):
    """This try failed; another may succeed."""

    def __init__(self, reason: str, *, retry_after_s: float = 0.0, slow_down: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.slow_down = slow_down
        """It failed because there are too many requests."""


@dataclass(slots=True)
class Payload:
    """How many bytes a try brings, if it succeeds."""

    size: int


@contextmanager
def counted(on_request: OnRequest, verb: str, payload_bytes: int = 0) -> Iterator[Payload]:
    """Around one try: tells how it ended. The error of a target comes out as the OSError it is."""
    payload = Payload(payload_bytes)
    began = time.monotonic()
    outcome = "cancelled"
    try:
        yield payload
        outcome = "ok"
    except Transient:
        outcome = "retry"
        raise
    except TargetFailed as error:
        outcome = "internal"
        raise error.error from error
    except HotshardError as error:
        outcome = code_name(error).lower()
        raise
    finally:
        size = payload.size if outcome == "ok" else 0
        on_request(verb, outcome, time.monotonic() - began, size)


class Tries:
    """The tries of one origin. Use from the event loop only."""

    def __init__(self, on_request: OnRequest, *, attempts: int, concurrency: int) -> None:
        self.pace = Pace(concurrency)
        self._on_request = on_request
        self._backoff = Backoff(attempts=attempts)
        self._budget = RetryBudget()

    async def until_done(
        self,
        verb: str,
        uri: str,
        attempt: Callable[[], Awaitable[T]],
        payload_bytes: int = 0,
        failed: Transient | None = None,
    ) -> T:
        """Try until it succeeds or there is no use in it; `failed`: a first try already did.

        Raises:
            OriginUnavailable: it was tried often enough.
            HotshardError: as the attempt says.
        """
        failures = 0
        began = time.monotonic()
        while True:
            if failed is not None:
                failures += 1
                extra = {"try": failures, "seconds": round(time.monotonic() - began, 3)}
                log.info("%s of %s failed: %s", verb, uri, failed, extra=extra)
                await asyncio.sleep(self._pause_s(verb, uri, failures, failed))
            try:
                async with self.pace.turn():
                    began = time.monotonic()
                    with (
                        counted(self._on_request, verb, payload_bytes),
                        step("origin", verb, uri=uri),
                    ):
                        result = await attempt()
            except Transient as error:
                failed = error
            else:
                self.succeeded()
                return result

    def succeeded(self) -> None:
        """A request was answered as it should be."""
        self._budget.succeeded()
        self.pace.succeeded()

    def _pause_s(self, verb: str, uri: str, failures: int, error: Transient) -> float:
        """How long to wait before the next try.

        Raises:
            OriginUnavailable: there is none.
        """
        if error.slow_down:
            self.pace.slowed_down()
        jitter = random.random()  # noqa: S311
        delay_s = self._backoff.delay_s(failures, jitter, error.retry_after_s)
        hopeless = error.retry_after_s > _RETRY_AFTER_S_MAX
        if hopeless or delay_s is None or not self._budget.try_spend():
            raise OriginUnavailable(
                f"{verb} {uri} failed {failures} times, the last time: {error}", uri=uri
            ) from error
        return delay_s
