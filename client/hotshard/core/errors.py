"""Every error that hotshard raises on purpose, and what each becomes at the edges.

    HotshardError
    +-- InvalidRequest        the caller's fault: a bad address, range or message   (ValueError)
    +-- NotFound              no such object                                        (FileNotFoundError)
    +-- PermissionDenied      the origin, or the server's configuration, says no    (PermissionError)
    +-- StaleObject           the origin holds another version than the one pinned  (OSError, ESTALE)
    +-- OriginUnavailable     the origin did not answer in time, or answered 5xx    (OSError, EIO)
    +-- Overloaded            ask again after `retry_after_s`                       (OSError, EAGAIN)
    +-- ServerUnavailable     no cache server where one was looked for              (ConnectionError)
    +-- CorruptData           bytes did not match their checksum, and no better copy was found (EIO)
    +-- InternalError         a defect in hotshard; the server's log has the details (EIO)
    +-- ConfigError           configuration that cannot work; lists every mistake   (ValueError)

Each error carries the object it is about (`uri`, may be empty). The tables at the end are the one place
where errors meet wire codes and gRPC status names; errno is the OSError's own.
"""

import errno as _errno


class HotshardError(Exception):
    """Base of all; catch this to catch everything hotshard raises on purpose."""

    errno: int | None = None

    def __init__(self, message: str, *, uri: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.uri = uri
        self.request_id = ""
        """Of the request that was refused, for the server's log; empty: no server said so."""

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.uri, getattr(self, "retry_after_s", None))


class _OSHotshardError(HotshardError, OSError):
    """An error that callers of file APIs expect as an OSError with an errno."""

    code = _errno.EIO

    def __init__(self, message: str, *, uri: str = "") -> None:
        HotshardError.__init__(self, message, uri=uri)
        self.errno = self.code
        self.strerror = message
        self.filename = uri or None


class InvalidRequest(HotshardError, ValueError):
    """The request itself makes no sense: a bad address, a bad range, a garbage message."""

    errno: int | None = _errno.EINVAL


class NotFound(_OSHotshardError, FileNotFoundError):
    """The origin has no such object."""

    code = _errno.ENOENT


class PermissionDenied(_OSHotshardError, PermissionError):
    """The origin refused our credentials, or the server is not configured to serve this address."""

    code = _errno.EACCES


class StaleObject(_OSHotshardError):
    """The object changed at the origin; open it again to read the new version."""

    code = _errno.ESTALE


class OriginUnavailable(_OSHotshardError):
    """The origin could not be asked; nothing is known about the object itself."""


class Overloaded(_OSHotshardError):
    """The server has no room for this request now; `retry_after_s` says when to try again."""

    code = _errno.EAGAIN

    def __init__(self, message: str, *, uri: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, uri=uri)
        self.retry_after_s = retry_after_s


class ServerUnavailable(_OSHotshardError, ConnectionError):
    """No cache server answered at the given address."""

    code = _errno.ECONNREFUSED


class CorruptData(_OSHotshardError):
    """Bytes that do not match their checksum, and could not be fetched again."""


class InternalError(_OSHotshardError):
    """A defect in hotshard. Please report it with the server's log."""


class ConfigError(HotshardError, ValueError):
    """A configuration that cannot work; `problems` names each mistake with its key."""

    def __init__(self, problems: list[str], *, source: str = "configuration") -> None:
        self.problems = problems
        self.source = source
        lines = "".join(f"\n  {p}" for p in problems)
        plural = "s" if len(problems) != 1 else ""
        super().__init__(f"{source}: {len(problems)} mistake{plural}{lines}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_config, (self.problems, self.source)


def _rebuild(
    kind: type[HotshardError], message: str, uri: str, retry_after_s: float | None
) -> HotshardError:
    if retry_after_s is not None and issubclass(kind, Overloaded):
        return kind(message, uri=uri, retry_after_s=retry_after_s)
    return kind(message, uri=uri)


def _rebuild_config(problems: list[str], source: str) -> ConfigError:
    return ConfigError(problems, source=source)


# name in types.proto ErrorCode (without the prefix) -> error; the reverse is `code_name`.
BY_CODE: dict[str, type[HotshardError]] = {
    "NOT_FOUND": NotFound,
    "PERMISSION": PermissionDenied,
    "STALE": StaleObject,
    "ORIGIN_UNAVAILABLE": OriginUnavailable,
    "OVERLOADED": Overloaded,
    "INVALID": InvalidRequest,
    "INTERNAL": InternalError,
}

# wire code name -> gRPC status name
GRPC_STATUS: dict[str, str] = {
    "NOT_FOUND": "NOT_FOUND",
    "PERMISSION": "PERMISSION_DENIED",
    "STALE": "FAILED_PRECONDITION",
    "ORIGIN_UNAVAILABLE": "UNAVAILABLE",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
    "INVALID": "INVALID_ARGUMENT",
    "INTERNAL": "INTERNAL",
}


def code_name(error: BaseException) -> str:
    """The wire code of an error; anything not ours, or with no code of its own, is INTERNAL."""
    for name, kind in BY_CODE.items():
        if isinstance(error, kind):
            return name
    return "INTERNAL"
