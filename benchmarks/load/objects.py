"""What a load reads: seeded objects that can be checked to the byte, or objects that somebody else has.

Both are numbered; workloads deal in numbers, targets in addresses.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.data import Bytes, DataSet
from benchmarks.load.workloads import Sized
from benchmarks.results import WrongBytes


class Objects(Sized, Protocol):
    """Numbered objects with addresses."""

    def uris(self) -> Sequence[str]:
        """The addresses, by number."""

    def check(self, index: int, offset: int, length: int, got: Bytes) -> None:
        """Judge the answer to a read.

        Raises:
            WrongBytes: it cannot be right.
        """


@dataclass(frozen=True, slots=True)
class Place:
    """A data set below a uri prefix."""

    data: DataSet
    prefix: str
    """Ends in "/"."""

    @property
    def count(self) -> int:
        """How many objects there are."""
        return self.data.count

    def size(self, index: int) -> int:
        """Of one object."""
        return self.data.size(index)

    def uri(self, index: int) -> str:
        """Where object number `index` is."""
        return self.prefix + self.data.name(index)

    def uris(self) -> list[str]:
        """All of them."""
        return [self.uri(index) for index in range(self.data.count)]

    def check(self, index: int, offset: int, length: int, got: Bytes) -> None:
        """Compare every byte."""
        self.data.check(index, offset, length, got)


@dataclass(frozen=True, slots=True)
class Found:
    """Objects that a listing showed."""

    names: Sequence[str]
    """Their addresses, in order."""
    sizes: Sequence[int]
    data: DataSet | None = None
    """What was written there, if that is known."""

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.names)

    def size(self, index: int) -> int:
        """Of one object."""
        return self.sizes[index]

    def uris(self) -> Sequence[str]:
        """All of them."""
        return self.names

    def check(self, index: int, offset: int, length: int, got: Bytes) -> None:
        """Compare every byte if it is known what was written, and else how many there are."""
        if self.data is not None:
            self.data.check(index, offset, length, got)
        wanted = max(0, min(length, self.sizes[index] - offset))
        if len(got) != wanted:
            raise WrongBytes(f"{self.names[index]}: {len(got)} of {wanted} bytes at {offset} came")
