"""What a row is, and the workbench it is given.

A row is data (name, unit, target) plus `open`, a context manager that sets the scene and yields the sides:
ours, and one or more limits. The runner calls the sides in turn; leaving the context tears everything down.
Sizes come from the workbench, so that the same row runs in full, quickly, and within a test.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.results import Measured
from benchmarks.sabotage import Sabotage
from benchmarks.stats import Better

SEED = 20260917


class Scale(StrEnum):
    """How big a run is."""

    FULL = "full"
    QUICK = "quick"
    TINY = "tiny"
    """For the harness' own tests: right or wrong, no meaningful figures."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how big a row runs."""

    directory: str
    """An empty directory of this row's own, on the disk that is measured."""
    scale: Scale = Scale.FULL
    sabotage: Sabotage = Sabotage.NONE
    seed: int = SEED

    @property
    def shared_directory(self) -> str:
        """For what several rows of a run need, and none of them changes."""
        return os.path.dirname(self.directory)

    def pick(self, *, full: int, quick: int, tiny: int) -> int:
        """A size, by scale."""
        return {Scale.FULL: full, Scale.QUICK: quick, Scale.TINY: tiny}[self.scale]


Side = Callable[[], Measured]
"""One timed run, from the same starting point each time. Raises WrongBytes if it read anything wrong."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What a row compares."""

    ours: Side
    limits: Mapping[str, Side]
    """The best of them is the limit; usually there is one."""
    peers: Mapping[str, Side] = field(default_factory=dict)
    """Measured in the same rounds and never the limit: rivals, and other ways through hotshard."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of DESIGN section 13."""

    name: str
    title: str
    unit: str
    target: float
    """The ratio to reach."""
    open: Callable[[Bench], AbstractContextManager[Sides]]
    better: Better = Better.HIGHER
    rounds: int = 3
    """Timed runs of each side."""
    warm_up: bool = True
    """Whether each side runs once untimed first; no for rows whose every run starts cold."""
    sabotages: tuple[Sabotage, ...] = (Sabotage.SLOW, Sabotage.FLIP)
    """What makes it fail; each is tried by the tests."""
    axes: tuple[str, str] = ("", "")
    """What the curves of its runs are drawn over (x) and show (y)."""
    quick: bool = True
    """Whether it is one of the rows of `run quick`."""
    budget_s: float = 20.0
    """Wall clock it may take at full scale, setting up included."""
    below: str = ""
    """Why it misses its target where it does, in a line; documents say it beside a miss."""


def constant(value: float) -> Side:
    """A limit that is a number, not a measurement."""
    return lambda: Measured(value)
