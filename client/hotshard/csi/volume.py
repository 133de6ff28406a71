"""What a publish request asks for, and why it is refused. Pure.

A volume is a prefix of an origin as a read-only file system, or (`mode: socket`) the directory of the cache
server's socket. `volumeAttributes` and `mountOptions` have the same names and say the same things; what
kubelet adds of its own (`csi.storage.k8s.io/...`: the pod, its tokens) is never looked at, kept or logged.

The codes are those of the CSI specification: INVALID_ARGUMENT for what is missing or makes no sense,
FAILED_PRECONDITION for what these volumes cannot do.
"""

import hashlib
import json
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hotshard.core.errors import ConfigError, InvalidRequest
from hotshard.core.uri import parse
from hotshard.mount.config import MODES, MountOptions, parse_options

SOCKET = "socket"
# What a user may ask for. The rest of the mount's options name files and addresses of the node.
OPTIONS = ("mode", "immutable", "ttl_s", "uid", "gid", "umask", "request_timeout_s", "list_timeout_s",
           "read_ahead_kib", "threads", "workers", "resend", "xattrs")  # fmt: skip
ATTRIBUTES = ("origin", "prefix", *OPTIONS)
_EPHEMERAL = "csi.storage.k8s.io/ephemeral"
_OF_KUBERNETES = ("csi.storage.k8s.io/", "storage.kubernetes.io/")
# What mount(8) knows and a read-only volume is anyway; everything else must be an option of ours.
_PLAIN_FLAGS = {
    "ro",
    "nosuid",
    "nodev",
    "noatime",
    "relatime",
    "defaults",
    "_netdev",
    "exec",
    "noexec",
}

# Access modes of the specification.
_READERS = {2, 3}  # SINGLE_NODE_READER_ONLY, MULTI_NODE_READER_ONLY
_SINGLE_NODE_WRITER = 1
_MULTI_NODE = {3, 4, 5}
_MODES_KNOWN = range(1, 8)


class Rejected(Exception):
    """A request that is refused; `code` is the name of the gRPC status."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """A NodePublishVolume request, without its secrets."""

    volume_id: str
    target: str
    access: str
    """"mount", "block", or "" when the request has no volume capability."""
    access_mode: int
    readonly: bool
    context: Mapping[str, str] = field(repr=False)
    mount_flags: Sequence[str] = ()
    mount_group: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """A volume that can be had."""

    volume_id: str
    target: str
    uri: str
    """The prefix; empty: the socket directory."""
    options: MountOptions
    multi_node: bool
    fingerprint: str
    """Equal for requests that ask for the same at one target."""

    @property
    def key(self) -> str:
        """Equal for volumes that can be one file system; empty: the socket directory."""
        if not self.uri:
            return ""
        text = json.dumps([self.uri, repr(self.options)])
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def wish(request: Request, kubelet_dir: str) -> Wish:
    """What a request asks for.

    Raises:
        Rejected: it cannot be had; the message says why and what to do.
    """
    check_place(request.volume_id, request.target, kubelet_dir, "target_path")
    _check_capability(request)
    attributes = _attributes(request)
    uri, options = "", MountOptions()
    if attributes.get("mode") != SOCKET:
        uri, options = _uri(attributes), _options(attributes, request.mount_group)
    elif len(attributes) > 1:
        others = ", ".join(sorted(set(attributes) - {"mode"}))
        raise Rejected(
            "INVALID_ARGUMENT", f"mode: socket has no other attributes (there are {others})"
        )
    return Wish(
        request.volume_id,
        request.target,
        uri,
        options,
        request.access_mode in _MULTI_NODE,
        _fingerprint(request, attributes),
    )


def check_place(volume_id: str, path: str, kubelet_dir: str, what: str) -> None:
    """Whether volume id and path are there and make sense.

    Raises:
        Rejected: not.
    """
    if not volume_id:
        raise Rejected("INVALID_ARGUMENT", "volume_id is missing")
    if not path:
        raise Rejected("INVALID_ARGUMENT", f"{what} is missing")
    inside = path.startswith(f"{kubelet_dir}/") and posixpath.normpath(path) == path
    if not inside or "\0" in path or len(path.encode()) >= 4096:
        raise Rejected("INVALID_ARGUMENT", f"{what} is no path below {kubelet_dir}")


def _check_capability(request: Request) -> None:
    if not request.access:
        raise Rejected("INVALID_ARGUMENT", "volume_capability is missing, or its access type")
    if request.access_mode not in _MODES_KNOWN:
        raise Rejected("INVALID_ARGUMENT", "volume_capability has no access mode")
    if request.access != "mount":
        raise Rejected(
            "FAILED_PRECONDITION", "volumeMode: Block is not possible: a prefix is no device"
        )
    # Kubelet asks for SINGLE_NODE_WRITER for every inline volume, whatever the pod says.
    inline = (
        request.context.get(_EPHEMERAL) == "true" and request.access_mode == _SINGLE_NODE_WRITER
    )
    if not (request.readonly or inline or request.access_mode in _READERS):
        raise Rejected(
            "FAILED_PRECONDITION",
            "volumes are read-only: use accessModes [ReadOnlyMany], or readOnly: true in the pod",
        )


def _attributes(request: Request) -> dict[str, str]:
    found = {
        name: value
        for name, value in request.context.items()
        if not name.startswith(_OF_KUBERNETES)
    }
    unknown = sorted(set(found) - set(ATTRIBUTES))
    for flag in (word.strip() for text in request.mount_flags for word in text.split(",")):
        name, equals, value = flag.partition("=")
        if not name or name in _PLAIN_FLAGS:
            continue
        if name not in OPTIONS:
            unknown.append(name)
        elif found.setdefault(name, value if equals else "true") != (value if equals else "true"):
            raise Rejected("INVALID_ARGUMENT", f"{name} is given twice, with different values")
    if unknown:
        names = ", ".join(name[:64] for name in unknown)
        raise Rejected(
            "INVALID_ARGUMENT", f"no such attribute: {names} (there are {', '.join(ATTRIBUTES)})"
        )
    return found


def _uri(attributes: Mapping[str, str]) -> str:
    origin = attributes.get("origin", "")
    if not origin:
        raise Rejected(
            "INVALID_ARGUMENT", "the attribute origin is missing (s3://bucket/prefix, file:///dir)"
        )
    text = origin if origin.endswith("/") else origin + "/"
    prefix = attributes.get("prefix", "").lstrip("/")
    if prefix:
        text += prefix if prefix.endswith("/") else prefix + "/"
    try:
        return parse(text).uri
    except InvalidRequest as error:
        raise Rejected("INVALID_ARGUMENT", f"origin: {error}") from error


def _options(attributes: Mapping[str, str], group: str) -> MountOptions:
    given: dict[str, str | bool] = {n: v for n, v in attributes.items() if n in OPTIONS}
    if group:
        if not group.isdecimal() or int(group) >= 1 << 32:
            raise Rejected("INVALID_ARGUMENT", f"volume_mount_group {group[:32]!r} is no group id")
        if given.setdefault("gid", group) != group:
            raise Rejected("INVALID_ARGUMENT", "gid is given, and another fsGroup by the pod")
    if given.get("mode", "auto") not in MODES:
        raise Rejected("INVALID_ARGUMENT", f"mode: one of {', '.join((*MODES, SOCKET))}")
    try:
        return parse_options({**given, "direct_after_s": "0"})  # the driver's to set
    except ConfigError as error:
        raise Rejected("INVALID_ARGUMENT", "; ".join(error.problems)) from error


def _fingerprint(request: Request, attributes: Mapping[str, str]) -> str:
    said = [request.volume_id, request.access_mode, request.readonly, request.mount_group,
            sorted(attributes.items())]  # fmt: skip
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:24]
