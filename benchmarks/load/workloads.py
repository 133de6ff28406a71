"""What is read, in which order: seeded and pure, the same on every target and in every run.

A workload is endless; the loop that drives it decides when to stop. Each of N ranks (client processes) has
its own stream. Reads carry the number of an object, not its name: the data set knows names and bytes.
"""

import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, count
from typing import Protocol


class Sized(Protocol):
    """Numbered objects with sizes."""

    @property
    def count(self) -> int:
        """How many there are."""

    def size(self, index: int) -> int:
        """Bytes of one."""


@dataclass(frozen=True, slots=True)
class Read:
    """One call: `length` bytes at `offset` of object number `index`."""

    index: int
    offset: int
    length: int


class Kind(StrEnum):
    """How a workload goes through the data set."""

    SEQUENTIAL = "sequential"
    """Every object from begin to end, in key order, again and again; ranks start at different objects."""
    RANDOM = "random"
    """Uniform over all aligned ranges of all objects."""
    ZIPF = "zipf"
    """Aligned ranges of objects whose popularity falls with a power of their rank."""
    EPOCHS = "epochs"
    """Every object once per epoch, in an order shuffled anew each time and dealt out to the ranks."""
    RESTORE = "restore"
    """Every object from begin to end in key order, by all ranks at once: a checkpoint is loaded."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream of reads for each rank."""

    kind: Kind
    read_bytes: int
    """Of each call; shorter at the end of an object. Small objects: at least their size."""
    seed: int
    exponent: float = 1.0
    """Of ZIPF."""

    def reads(self, data: Sized, rank: int, ranks: int) -> Iterator[Read]:
        """The reads of one rank; endless."""
        if self.kind is Kind.SEQUENTIAL:
            return self._through(data, _rounds(data.count, rank, ranks))
        if self.kind is Kind.RESTORE:
            return self._through(data, _rounds(data.count, 0, 1))
        if self.kind is Kind.EPOCHS:
            return self._through(data, shuffled_epochs(data.count, rank, ranks, self.seed))
        rng = random.Random(f"{self.seed}/{rank}")
        if self.kind is Kind.ZIPF:
            return self._scattered(data, zipf(data.count, self.exponent, rng), rng)
        return self._scattered(data, _uniform(data.count, rng), rng)

    def _through(self, data: Sized, objects: Iterator[int]) -> Iterator[Read]:
        for index in objects:
            size = data.size(index)
            for offset in range(0, size, self.read_bytes):
                yield Read(index, offset, min(self.read_bytes, size - offset))

    def _scattered(self, data: Sized, objects: Iterator[int], rng: random.Random) -> Iterator[Read]:
        for index in objects:
            size = data.size(index)
            offset = rng.randrange(-(-size // self.read_bytes)) * self.read_bytes
            yield Read(index, offset, min(self.read_bytes, size - offset))


def shuffled_epochs(objects: int, rank: int, ranks: int, seed: int) -> Iterator[int]:
    """The share of one rank of every epoch: all ranks together see each object once per epoch."""
    for epoch in count():
        order = list(range(objects))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        yield from order[rank::ranks]


def zipf(objects: int, exponent: float, rng: random.Random) -> Iterator[int]:
    """Objects with probability proportional to 1 / (number + 1) ** exponent."""
    heights = list(accumulate((number + 1) ** -exponent for number in range(objects)))
    while True:
        yield bisect(heights, rng.random() * heights[-1], hi=objects - 1)


def _rounds(objects: int, rank: int, ranks: int) -> Iterator[int]:
    start = objects * rank // ranks
    for step in count():
        yield (start + step) % objects


def _uniform(objects: int, rng: random.Random) -> Iterator[int]:
    while True:
        yield rng.randrange(objects)
