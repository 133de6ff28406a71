"""Values as people write them: sizes, shares, network addresses, file modes.

Each parser takes what YAML, the environment or a caller may hand it, and raises ValueError with a
message that says what would be right. `format_size` is the exact inverse of `parse_size`.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

_UNITS = {
    "": 1,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "KI": 1 << 10,
    "MI": 1 << 20,
    "GI": 1 << 30,
    "TI": 1 << 40,
    "PI": 1 << 50,
}
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,9})?)\s*([KMGTP]I?)?B?", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.%A-Za-z0-9]+\]", re.ASCII)

SIZE_BYTES_MAX = (1 << 63) - 1
"""What a file offset can hold."""


def parse_size(value: object) -> int:
    """Bytes from a number, or from text such as 512MiB, 10Gi, 100GB or 1.5TiB."""
    wrong = ValueError(
        "should be a size: a number of bytes, or text such as 512MiB, 10GiB or 100GB"
    )
    if isinstance(value, int) and not isinstance(value, bool):
        size = Fraction(value)
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = Fraction(match[1]) * _UNITS[(match[2] or "").upper()]
    else:
        raise wrong
    if size.denominator != 1 or not 0 <= size <= SIZE_BYTES_MAX:
        raise wrong
    return int(size)


def format_size(size: int) -> str:
    """The shortest exact text for a number of bytes."""
    for unit in ("PiB", "TiB", "GiB", "MiB", "KiB"):
        step = _UNITS[unit[:2].upper()]
        if size and size % step == 0:
            return f"{size // step}{unit}"
    return str(size)


@dataclass(frozen=True, slots=True)
class Amount:
    """So many bytes, or a share of a file system. Exactly one of the two is set."""

    size_bytes: int | None = None
    share: float | None = None

    def of(self, total_bytes: int) -> int:
        """The bytes this comes to on a file system of `total_bytes`."""
        if self.size_bytes is not None:
            return self.size_bytes
        assert self.share is not None, "one of the two is set"
        return int(total_bytes * self.share)

    @property
    def nothing(self) -> bool:
        """Whether it comes to zero on every file system."""
        return not self.size_bytes and not self.share

    def __str__(self) -> str:
        if self.size_bytes is not None:
            return format_size(self.size_bytes)
        return f"{(self.share or 0) * 100:.6f}".rstrip("0").rstrip(".") + "%"


def parse_amount(value: object) -> Amount:
    """A size, or a percentage of the file system."""
    if isinstance(value, Amount):
        return value
    if isinstance(value, str) and (match := _SHARE.fullmatch(value.strip())):
        share = float(match[1]) / 100
        if share <= 1:
            return Amount(share=share)
    elif not isinstance(value, str) or "%" not in value:
        try:
            return Amount(size_bytes=parse_size(value))
        except ValueError:
            pass
    raise ValueError("should be a size such as 100GiB, or a share of the file system such as 80%")


@dataclass(frozen=True, slots=True)
class HostPort:
    """Where a TCP server listens. Port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def collides(self, other: "HostPort") -> bool:
        """Whether both cannot be listened on at one time."""
        wildcard = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
        hosts = {self.host, other.host}
        return self.port == other.port != 0 and (len(hosts) == 1 or bool(hosts & wildcard))


def parse_host_port(value: object) -> HostPort:
    """HOST:PORT; an IPv6 host stands in brackets."""
    if isinstance(value, HostPort):
        return value
    if isinstance(value, str):
        host, _, port = value.strip().rpartition(":")
        if _HOST.fullmatch(host) and port.isascii() and port.isdigit() and int(port) <= 65535:
            return HostPort(host.strip("[]"), int(port))
    raise ValueError("should be HOST:PORT, such as 127.0.0.1:7070 or [::]:7070")


def parse_mode(value: object) -> int:
    """Permission bits from octal text."""
    # A bare 0666 or 666 in YAML is already a number, and which one depends on the leading zero.
    if isinstance(value, str) and _MODE.fullmatch(value):
        return int(value, 8)
    raise ValueError('should be octal digits in quotes, such as "0666"')
