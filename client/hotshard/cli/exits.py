"""How a command ends: exit codes, and the one line on stderr that says what went wrong and what to do.

Every error leaves as `hotshard: <what>: <remedy>`. Scripts rely on the codes; they are listed in
`hotshard --help` and never change their meaning.
"""

from hotshard.core.errors import (
    ConfigError,
    HotshardError,
    InternalError,
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    Overloaded,
    PermissionDenied,
    ServerUnavailable,
    StaleObject,
)

OK = 0
FAILED = 1
USAGE = 2
PARTIAL = 3
NOT_FOUND = 4
PERMISSION = 5
UNAVAILABLE = 6
INTERRUPTED = 130

HELP = """\b
Exit codes:
    0  done
    1  failed
    2  wrong usage, a bad address or a bad configuration
    3  done in part: not everything is resident, or not everything was copied
    4  no such object
    5  permission denied
    6  no server, or the origin does not answer: try again later
  130  interrupted
"""

# First match wins: error, exit code, what to do about it.
_REMEDIES: tuple[tuple[type[HotshardError], int, str], ...] = (
    (ConfigError, USAGE, ""),
    (InvalidRequest, USAGE, ""),
    (NotFound, NOT_FOUND, "look for it with `hotshard ls`"),
    (PermissionDenied, PERMISSION, "see `hotshard status` for the origins that are served"),
    (ServerUnavailable, UNAVAILABLE, "start one with `hotshard serve`, or name one with --address"),
    (OriginUnavailable, UNAVAILABLE, "try again; the server's log has the details"),
    (Overloaded, UNAVAILABLE, "try again in a moment"),
    (StaleObject, FAILED, "it changed while it was read; run the command again"),
    (InternalError, FAILED, "please report this with the server's log"),
)


class Failure(Exception):
    """A command that cannot go on: what happened, what to do about it, and the exit code."""

    def __init__(self, what: str, remedy: str = "", code: int = FAILED) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.code = code

    @property
    def line(self) -> str:
        """The line for stderr."""
        joint = " " if self.what.endswith("?") else ": "
        return f"hotshard: {self.what}" + (joint + self.remedy if self.remedy else "")


def failure_of(error: HotshardError) -> Failure:
    """A typed error of hotshard as the end of a command."""
    for kind, code, remedy in _REMEDIES:
        if isinstance(error, kind):
            advised = ";" in error.message  # it says itself what to do, more exactly than we can
            return Failure(error.message, "" if advised else remedy, code)
    return Failure(str(error))
