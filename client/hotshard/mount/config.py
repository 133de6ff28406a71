"""The options of a mount: what `-o` takes, and what keeper and reader are started with.

One frozen dataclass; it travels to the keeper and to each reader as JSON. Every mistake is reported at
once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

from hotshard.core.errors import ConfigError
from hotshard.options import DIRECT

_ID_MAX = (1 << 32) - 2  # of users and groups; the last one means "none"
MODES = ("auto", "passthrough", "cached", "no_open")
# What mount(8) and systemd add on their own, and what a read-only mount always is.
_IGNORED = {"ro", "defaults", "nosuid", "nodev", "noatime", "relatime", "auto", "noauto", "user", "users",
            "nofail", "_netdev", "exec", "noexec", "dev", "suid", "rw", "nouser"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MountOptions:
    """Options of one mount."""

    address: str | None = None
    """The cache server's socket; default: HOTSHARD_ADDRESS, else /run/hotshard/local.sock."""
    mode: str = "auto"
    """`passthrough`: for what is complete on this node (Linux 6.9+), else `cached`: through the page cache
    of the mount. `no_open`: cached, and opening a file asks nobody. `auto`: `no_open` if the mount is
    immutable and its files are small, else `passthrough`."""
    allow_other: bool = True
    """Other users than the one who mounts may read."""
    uid: int = 0
    """Owner of every file."""
    gid: int = 0
    """Group of every file."""
    umask: int = 0o022
    """Bits taken away from 0644 and 0755; nobody may write anyway."""
    ttl_s: float = 60.0
    """How long names and versions may be believed before they are asked for again."""
    immutable: bool = False
    """Nothing ever changes at the origin: names and versions are believed for ever."""
    request_timeout_s: float = 60.0
    """A request that takes longer fails with EIO."""
    list_timeout_s: float = 600.0
    """The same for listing a directory, which may be very large."""
    direct: str = "auto"
    """`auto`: while the cache server is away, read the origin itself, as far as this process can: files it
    sees, and S3 with the extra hotshard[direct] and credentials of its own. `never`: wait for it."""
    direct_after_s: float = 5.0
    """How long without the server before that; less than `request_timeout_s`."""
    orphan_timeout_s: float = 600.0
    """Without a working reader for so long, the mount gives up and everything on it fails."""
    hang_timeout_s: float = 10.0
    """A reader that gives no sign of life for so long is replaced."""
    drain_timeout_s: float = 10.0
    """How long a reader that is replaced on purpose may finish what it has begun."""
    threads: int = 2
    """Threads that take requests from the kernel, each on a queue of its own."""
    workers: int = 32
    """Threads that wait for the cache server."""
    files_max: int = 4096
    """Open files of the cache kept for reuse; at most half of RLIMIT_NOFILE."""
    xattrs: bool = True
    """Files have attributes (user.hotshard.*). `no`: the kernel asks us for none. `ls -l` wants two others
    of each file, and takes several times as long for them."""
    read_ahead_kib: int = 1024
    """How far the kernel reads ahead of a sequential reader in cached mode."""
    resend: bool = True
    """Use the kernel's resend (Linux 6.9+) after a crash of the reader, not only our own record."""
    log_file: str | None = None
    """Where a mount in the background logs; default: its standard error, unless that is a terminal."""
    metrics_file: str | None = None
    """Write the metrics here every few seconds (Prometheus text; for a textfile collector)."""
    metrics_port: int | None = None
    """Serve the metrics on http://127.0.0.1:port/metrics."""

    def problems(self) -> list[str]:
        """What cannot work; empty if all is well."""
        found = []
        if self.mode not in MODES:
            found.append(f"mode={self.mode}: one of {', '.join(MODES)}")
        if self.direct not in DIRECT:
            found.append(f"direct={self.direct}: one of {', '.join(DIRECT)}")
        if not 0 <= self.direct_after_s < self.request_timeout_s:
            found.append(f"direct_after_s={self.direct_after_s}: from 0 to request_timeout_s")
        found += [
            f"{name}={getattr(self, name)}: must be positive"
            for name in (
                "request_timeout_s",
                "list_timeout_s",
                "orphan_timeout_s",
                "hang_timeout_s",
            )
            if getattr(self, name) <= 0
        ]
        limits = {
            "threads": (1, 16),
            "workers": (1, 256),
            "files_max": (16, 1 << 20),
            "read_ahead_kib": (0, 1 << 16),
            "uid": (0, _ID_MAX),
            "gid": (0, _ID_MAX),
            "umask": (0, 0o777),
        }
        for name, (least, most) in limits.items():
            if not least <= getattr(self, name) <= most:
                found.append(f"{name}={getattr(self, name)}: from {least} to {most}")
        if self.ttl_s < 0:
            found.append(f"ttl_s={self.ttl_s}: must not be negative")
        return found


def parse_options(words: Mapping[str, str | bool] | str) -> MountOptions:
    """Options from the text after `-o` ("a,b=c").

    Raises:
        ConfigError: every mistake, by name.
    """
    pairs = dict(_split(words)) if isinstance(words, str) else dict(words)
    kinds = {field.name: field.type for field in fields(MountOptions)}
    values: dict[str, Any] = {}
    problems = []
    for name, text in pairs.items():
        if name in _IGNORED or name.startswith(("x-", "comment=")):
            continue
        if name not in kinds:
            problems.append(f"{name}: no such option (there are {', '.join(sorted(kinds))})")
            continue
        try:
            values[name] = _value(name, str(kinds[name]), text)
        except ValueError as error:
            problems.append(f"{name}={text}: {error}")
    options = MountOptions(**values)
    problems += options.problems()
    if problems:
        raise ConfigError(problems, source="mount options")
    return options


def _split(text: str) -> list[tuple[str, str | bool]]:
    pairs: list[tuple[str, str | bool]] = []
    for word in text.split(","):
        name, sep, value = word.strip().partition("=")
        if name:
            pairs.append((name, value if sep else True))
    return pairs


def _value(name: str, kind: str, text: str | bool) -> Any:  # noqa: FBT001
    if "bool" in kind:
        if text in {True, "true", "yes", "1"}:
            return True
        if text in {False, "false", "no", "0"}:
            return False
        raise ValueError("yes or no")
    if isinstance(text, bool):
        raise ValueError("needs a value")  # noqa: TRY004
    if "float" in kind:
        return _number(text, float, "takes a finite number")
    if "int" in kind:
        if name == "umask":
            return _number(text, lambda word: int(word, 8), "takes an octal number, as 022")
        return _number(text, int, "takes a whole number")
    return text


def _number(text: str, read: Callable[[str], float], takes: str) -> float:
    try:
        value = read(text)
        finite = isfinite(value)
    except (ValueError, OverflowError):
        raise ValueError(takes) from None
    if not finite:
        raise ValueError(takes)
    return value


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a keeper or a reader must know of a mount."""

    uri: str
    """The mounted prefix; ends in "/"."""
    target: str
    """The mount point, absolute."""
    device: str
    """Major and minor number of the mounted file system."""
    born_ns: int
    """When it was mounted: the mtime of directories nobody marks."""
    directory: str | None
    """Serve this local directory instead of a cache server."""
    options: MountOptions
    supervised: bool = False
    """Whoever started the reader starts the next one too: a reader that loses it ends."""

    def to_json(self) -> str:
        """For a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan a command line carries; what only another version knows is ignored."""
        raw = json.loads(text)
        options = MountOptions(**_known(MountOptions, raw["options"]))
        return cls(**{**_known(cls, raw), "options": options})


def _known(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}
