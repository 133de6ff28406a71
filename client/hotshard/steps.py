"""The steps an operation consists of: all the I/O that the pure part of the client ever asks for."""

from collections.abc import Generator
from typing import Any, TypeVar

from hotshard.calls import Call, Touch
from hotshard.openfile import OpenFile

T = TypeVar("T")


class Submit:
    """Send a call; the result is a ticket for its reply. Raises ServerUnavailable."""

    __slots__ = ("call",)

    def __init__(self, call: Call) -> None:
        self.call = call


class Wait:
    """The result is the reply; a refusal is raised, and ServerUnavailable when none comes in time."""

    __slots__ = ("ticket",)

    def __init__(self, ticket: object) -> None:
        self.ticket = ticket


class Tell:
    """Send what has no reply, if that is possible right now."""

    __slots__ = ("touch",)

    def __init__(self, touch: Touch) -> None:
        self.touch = touch


class Pause:
    """Wait."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class ReadBytes:
    """The result is what the file has at `offset`, at most `count` bytes."""

    __slots__ = ("count", "file", "offset")

    def __init__(self, file: OpenFile, count: int, offset: int) -> None:
        self.file = file
        self.count = count
        self.offset = offset


class ReadInto:
    """Read into `view` from `offset` of the file; the result is how many bytes came."""

    __slots__ = ("file", "offset", "view")

    def __init__(self, file: OpenFile, view: memoryview, offset: int) -> None:
        self.file = file
        self.view = view
        self.offset = offset


Step = Submit | Wait | Tell | Pause | ReadBytes | ReadInto
Operation = Generator[Step, Any, T]
"""A generator that yields steps, is sent their results, and returns a T."""
