"""What the fields of the configuration are made of: sections, and types that check what they are given."""

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
)

from cache_server.config.units import (
    Amount,
    HostPort,
    format_size,
    parse_amount,
    parse_host_port,
    parse_mode,
    parse_size,
)
from hotshard.core import uri
from hotshard.core.slots import (
    check_slots,
)

Path = tuple[str | int, ...]
"""Where a value stands: ("origins", 0, "prefix")."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How the reference names a type, and writes its values."""

    name: str
    write: Callable[[Any], str] = str


def _prefix(value: object) -> str:
    if isinstance(value, str):
        found = uri.parse(value.strip()).uri
        return found if found.endswith("/") else f"{found}/"
    raise ValueError("should be text such as s3://bucket/prefix/ or file:///dir/")


def _directory(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("should be an absolute path")
    return "/" + posixpath.normpath(value).lstrip("/")


def _socket_path(value: object) -> str:
    path = _directory(value)
    if len(path.encode(errors="replace")) > 107:
        raise ValueError("should be at most 107 bytes long, which is all a socket address holds")
    return path


def _sized(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        size = parse_size(value)
        if not least <= size <= most:
            raise ValueError(f"should be between {format_size(least)} and {format_size(most)}")
        return size

    return parse


def _blocks(least: int, most: int) -> Callable[[object], int]:
    in_range = _sized(least, most)

    def parse(value: object) -> int:
        size = in_range(value)
        if size % 4096:
            raise ValueError("should be a multiple of 4KiB, the page size of files")
        return size

    return parse


def _memory(value: object) -> int | None:
    if value is None or value == "auto":
        return None
    return _sized(16 << 20, 1 << 50)(value)


def _capacity(value: object) -> Amount:
    amount = parse_amount(value)
    if amount.nothing:
        raise ValueError("should be more than nothing, such as 100GiB or 80%")
    return amount


def _endpoint(value: object) -> object:
    if isinstance(value, str) and not value.startswith(("http://", "https://")):
        raise ValueError("should begin with http:// or https://")
    return value


def keyed(key: str) -> BeforeValidator:
    """Lets the text alone stand for a section whose other keys keep their defaults."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


def _slots(value: int) -> int:
    check_slots(value)
    return value


def _optional_listen(value: object) -> HostPort | None:
    return None if value is None else parse_host_port(value)


Prefix = Annotated[str, PlainValidator(_prefix), Shown("uri prefix")]
Directory = Annotated[str, PlainValidator(_directory), Shown("absolute path")]
SocketPath = Annotated[str, PlainValidator(_socket_path), Shown("absolute path")]
Listen = Annotated[HostPort, PlainValidator(parse_host_port), Shown("host:port")]
Mode = Annotated[int, PlainValidator(parse_mode), Shown("octal text", lambda mode: f'"{mode:04o}"')]
Share = Annotated[Amount, PlainValidator(parse_amount), Shown("size or percentage")]
Capacity = Annotated[Amount, PlainValidator(_capacity), Shown("size or percentage")]
OptionalListen = Annotated[
    HostPort | None,
    PlainValidator(_optional_listen),
    Shown("host:port, or null", lambda value: "null" if value is None else str(value)),
]
ShardBytes = Annotated[int, PlainValidator(_blocks(4096, 1 << 40)), Shown("size", format_size)]
BlockBytes = Annotated[int, PlainValidator(_blocks(4096, 1 << 30)), Shown("size", format_size)]
MemoryBytes = Annotated[
    int | None,
    PlainValidator(_memory),
    Shown("size, or auto", lambda size: "auto" if size is None else format_size(size)),
]
Bytes = Annotated[int, PlainValidator(_sized(0, 1 << 50)), Shown("size", format_size)]
Slots = Annotated[int, AfterValidator(_slots)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Price = Annotated[float, Field(ge=0, le=1_000_000)]
Uid = Annotated[int, Field(ge=0, lt=1 << 32)]
Text = Annotated[str, Field(min_length=1)]
Endpoint = Annotated[Text | None, BeforeValidator(_endpoint)]


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no change after loading."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )
