"""What a handler of requests takes and gives, and how it waits for a source."""

import errno
import logging
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from hotshard.core.errors import (
    HotshardError,
    OriginUnavailable,
    Overloaded,
    ServerUnavailable,
)
from hotshard.mount.codec import Request
from hotshard.mount.metrics import Tally

log = logging.getLogger(__name__)

RETRY_S = 0.2  # between two tries, while the cache server is away
ORIGIN_RETRY_S = 1.0  # the same, while the origin fails: the cache server has tried several times
ORIGIN_PATIENCE_S = 60.0  # what fails for longer is no passing trouble; a listing may take longer
_ERRNOS = frozenset({errno.ENOENT, errno.EACCES, errno.ESTALE, errno.EINVAL, errno.EIO})

T = TypeVar("T")
Payload = bytes | memoryview


class Refusal(Exception):
    """The answer to a request is an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)  # no words: some programs ask for what is not there, file after file
        self.errno = code


class Task(NamedTuple):
    """What a handler has to work with besides the request."""

    buffer: memoryview
    """Room for the largest read."""
    tally: Tally
    deadline_s: float
    """When a worker has to have an answer; nobody waits for it later."""


class Later(NamedTuple):
    """The answer needs the source: run this on a worker."""

    run: Callable[[Request, Task], Payload]
    timeout_s: float


Answer = Payload | Later | None
"""None: this request has no reply."""


def patiently(task: Task, ask: Callable[[float], T]) -> T:
    """What the source says, asked again until the deadline while it is away, late or overloaded.

    Programs that read a local disk are not prepared for a read that fails, and works a second later.

    Raises:
        Refusal: it has no answer in time, or says no.
    """
    patience_s = time.monotonic() + ORIGIN_PATIENCE_S
    while True:
        now_s = time.monotonic()
        left_s = task.deadline_s - now_s
        try:
            return ask(max(0.1, left_s))
        except (ServerUnavailable, Overloaded) as error:
            pause_s = max(RETRY_S, getattr(error, "retry_after_s", 0.0))
            if pause_s >= left_s:
                raise Refusal(errno.EIO) from error
            time.sleep(pause_s)
        except OriginUnavailable as error:
            if min(left_s, patience_s - now_s) <= ORIGIN_RETRY_S:
                log.warning("%s", error)
                raise Refusal(errno.EIO) from error
            log.info("%s; it is asked again", error)
            time.sleep(ORIGIN_RETRY_S)
        except HotshardError as error:
            code = error.errno if error.errno in _ERRNOS else errno.EIO
            if code == errno.EIO:
                log.warning("%s", error)
            raise Refusal(code or errno.EIO) from error
