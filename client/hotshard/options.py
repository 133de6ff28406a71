"""How a client is set up, and where it looks for its server.

In this order: the address it was given, `HOTSHARD_ADDRESS`, the node's own socket at its usual place.
An address is `unix:///run/hotshard/local.sock` (or the bare absolute path), or `host:port` for gRPC.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from hotshard.core.errors import InvalidRequest, ServerUnavailable

NODE_SOCKET = "/run/hotshard/local.sock"
VARIABLE = "HOTSHARD_ADDRESS"
FILES_MAX_DEFAULT = 1024
DIRECT = ("auto", "never")


@dataclass(frozen=True, slots=True)
class Options:
    """What a client is made from; all of it survives pickling."""

    address: str | None = None
    """None: look it up again wherever the client wakes up."""
    timeout_s: float = 60.0
    """For one answer of the server, which may have to fetch up to 64 MiB for it."""
    reconnect_s: float = 30.0
    """For a server that went away, as it does when it is upgraded."""
    files_max: int | None = None
    """Open files kept for reuse; default: a quarter of RLIMIT_NOFILE, at most 1024."""
    direct: str = "auto"
    """"auto": while no server answers, read from the origin itself, as far as this process can: files it
    sees, and S3 with the extra hotshard[direct] and credentials of its own. "never": ServerUnavailable."""
    direct_after_s: float = 5.0
    """How long without a server before that."""
    ca: str | None = None
    """TLS (gRPC only): file with the authorities to trust."""
    certificate: str | None = None
    """TLS: file with our own certificate chain."""
    key: str | None = None
    """TLS: file with its private key."""

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if self.timeout_s <= 0 or self.reconnect_s < 0:
            raise InvalidRequest("timeout_s must be positive, reconnect_s not negative")
        if self.direct not in DIRECT or self.direct_after_s < 0:
            raise InvalidRequest(f"direct is one of {DIRECT}, direct_after_s not negative")
        if (self.certificate is None) != (self.key is None):
            raise InvalidRequest("TLS needs both certificate and key, or neither")

    @property
    def tls(self) -> bool:
        """Whether gRPC is to be encrypted."""
        return self.ca is not None or self.certificate is not None


class ConnectOptions(TypedDict, total=False):
    """The keyword arguments of `connect()`: see `Options`."""

    timeout_s: float
    reconnect_s: float
    files_max: int | None
    direct: str
    direct_after_s: float
    ca: str | None
    certificate: str | None
    key: str | None


def resolve(options: Options, environ: Mapping[str, str]) -> tuple[str, str]:
    """Where the server is: ("unix", path) or ("grpc", "host:port").

    Raises:
        ServerUnavailable: no address was given, and there is no socket at the usual place.
        InvalidRequest: the address is none.
    """
    text = options.address or environ.get(VARIABLE, "")
    if text:
        return _parse(text)
    places = usual_sockets(environ, os.getuid())
    for path in places:
        if _is_socket(path):
            return "unix", path
    raise ServerUnavailable(
        f"no cache server: there is no socket at {' or '.join(places)} and {VARIABLE} is not set;"
        f" start one (hotshard serve), mount its socket into this container, or set {VARIABLE}"
        f" to unix:///path/to/local.sock or host:port"
    )


def usual_sockets(environ: Mapping[str, str], uid: int) -> list[str]:
    """Where a server listens that was told nothing: one of this user, and then the node's."""
    if uid == 0:
        return [NODE_SOCKET]
    run = environ.get("XDG_RUNTIME_DIR") or f"/tmp/hotshard-{uid}"  # noqa: S108 - its owner is checked
    return [f"{run}/hotshard/local.sock", NODE_SOCKET]


def _is_socket(path: str) -> bool:
    """Whether there is a socket, made by root or by ourselves: anybody can put one into /tmp."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid in {0, os.getuid()}


def _parse(text: str) -> tuple[str, str]:
    path = text.removeprefix("unix://")
    if path.startswith("/"):
        if len(os.fsencode(path)) > 107:
            raise InvalidRequest(f"{path}: a socket's path has at most 107 bytes")
        return "unix", path
    host, colon, port = text.rpartition(":")
    if colon and host and "/" not in text and port.isdecimal() and int(port) < 65536:
        return "grpc", text
    raise InvalidRequest(
        f"{text!r} is not an address of a cache server: use unix:///path/to/local.sock or host:port"
    )


def files_max(options: Options) -> int:
    """How many open files the client may keep for reuse."""
    if options.files_max is not None:
        return max(1, options.files_max)
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return FILES_MAX_DEFAULT
    return max(16, min(FILES_MAX_DEFAULT, soft // 4))
