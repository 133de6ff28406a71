"""policy.*: the eviction policy on traces, without a disk; every shard has one size.

For readers that read everything once per epoch the limit is c, the cached fraction: no policy exceeds it
for one reader, and for several only one that knows what each will read next. LRU, S3-FIFO and the offline
optimum are measured on the same traces. A row's value is its worst ratio over all cached fractions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from random import Random

from benchmarks.bench import Bench, Row, Sides, constant
from benchmarks.policy import traces
from benchmarks.policy.others import Lru, S3Fifo
from benchmarks.policy.recorded import RECORDED, recorded
from benchmarks.policy.replay import Access, Count, minimum, replay
from benchmarks.results import Fact, Measured
from benchmarks.sabotage import Sabotage
from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.core.eviction import EvictionPolicy

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)
_NewPolicy = Callable[[], EvictionPolicy]
_EPOCHS = 8
_PAUSES_KNOWN = 4  # epochs: until then the two datasets still push each other out while one pauses


class Case:
    """A trace, at several sizes of the cache, and the phases that count."""

    def __init__(
        self,
        trace: Iterable[Access],
        phases: Iterable[int],
        shards: int,
        *,
        name: str = "",
        share: float = 1.0,
    ) -> None:
        self.trace: Sequence[Access] = list(trace)
        self.phases = tuple(phases)
        self.shards = shards
        """That the fractions are of."""
        self.name = name
        self.share = share
        """What of the cached fraction can be hits."""

    def capacity(self, fraction: float) -> int:
        """Shards."""
        return max(1, int(self.shards * fraction))

    def bound(self, fraction: float) -> float:
        """The hit ratio that no policy exceeds for one reader."""
        return self.share * self.capacity(fraction) / self.shards

    def run(self, new_policy: _NewPolicy, fraction: float) -> tuple[Count, list[float]]:
        """Replay; what counts, and the hit ratio of every epoch."""
        capacity_bytes = self.capacity(fraction) * self.trace[0].shard.size
        found = replay(self.trace, new_policy(), capacity_bytes)
        phases = sorted(found.phases)
        return found.total(self.phases), [found.phases[phase].hit_ratio for phase in phases]

    def best(self, fraction: float) -> float:
        """The hit ratio of the offline optimum."""
        return minimum(self.trace, self.capacity(fraction)).total(self.phases).hit_ratio


def _against_bound(cases: Sequence[Case], new_policy: _NewPolicy) -> Measured:
    """The worst ratio of hits to c."""
    worst, facts = float("inf"), dict[str, Fact]()
    curves = {}
    for case in cases:
        for fraction in FRACTIONS:
            count, by_epoch = case.run(new_policy, fraction)
            worst = min(worst, count.hit_ratio / case.bound(fraction))
            label = f"{case.name}c={fraction:.0%}"
            facts[f"{label}: hits %"] = round(100 * count.hit_ratio, 2)
            facts[f"{label}: written %"] = round(100 * count.taken_in / count.asked, 2)
            if case is cases[0]:
                curves[label] = [(n + 1.0, 100 * hits) for n, hits in enumerate(by_epoch)]
    return Measured(worst, operations=len(cases[0].trace), facts=facts, curves=curves)


def _optimum(cases: Sequence[Case]) -> Measured:
    worst = float("inf")
    for case in cases:
        for fraction in FRACTIONS:
            worst = min(worst, case.best(fraction) / case.bound(fraction))
    return Measured(worst)


def _ours(bench: Bench) -> _NewPolicy:
    return Lru if bench.sabotage is Sabotage.LRU else DatasetPolicy


def _sides(bench: Bench, cases: Sequence[Case]) -> Sides:
    return Sides(
        ours=partial(_against_bound, cases, _ours(bench)),
        limits={"c": constant(1.0)},
        peers={
            "LRU": partial(_against_bound, cases, Lru),
            "S3-FIFO": partial(_against_bound, cases, S3Fifo),
            "offline optimum": partial(_optimum, cases),
        },
    )


def _count(bench: Bench) -> int:
    return bench.pick(full=2000, quick=1000, tiny=100)


@contextmanager
def _epochs(bench: Bench) -> Iterator[Sides]:
    shards = traces.dataset(1, _count(bench))
    warm = range(1, _EPOCHS)
    shuffled = traces.epochs(shards, _EPOCHS, Random(bench.seed))
    in_order = traces.epochs(shards, _EPOCHS, Random(bench.seed), shuffled=False)
    yield _sides(
        bench,
        [
            Case(shuffled, warm, len(shards)),
            Case(in_order, warm, len(shards), name="same order, "),
        ],
    )


@contextmanager
def _jobs(bench: Bench) -> Iterator[Sides]:
    shards = traces.dataset(1, _count(bench))
    yield _sides(
        bench,
        [
            Case(
                traces.jobs(shards, _EPOCHS, jobs, bench.seed),
                range(2, _EPOCHS),
                len(shards),
                name=f"{jobs} jobs, ",
            )
            for jobs in (2, 4)
        ],
    )


@contextmanager
def _switch(bench: Bench) -> Iterator[Sides]:
    first, second = (traces.dataset(number, _count(bench)) for number in (1, 2))
    trace = traces.switch(first, second, 4, bench.seed)
    yield _sides(bench, [Case(trace, range(5, 8), len(second))])


@contextmanager
def _two(bench: Bench) -> Iterator[Sides]:
    first, second = (traces.dataset(number, _count(bench)) for number in (1, 2))
    trace = traces.two_datasets(first, second, 10, bench.seed)
    yield _sides(bench, [Case(trace, range(6, 10), len(first), share=0.5)])


@contextmanager
def _recorded(bench: Bench) -> Iterator[Sides]:
    trace = recorded(RECORDED)
    shards = len({access.shard.digest for access in trace})
    last = max(access.phase for access in trace)
    yield _sides(bench, [Case(trace, range(_PAUSES_KNOWN, last + 1), shards)])


@contextmanager
def _scan(bench: Bench) -> Iterator[Sides]:
    shards = traces.dataset(1, bench.pick(full=2000, quick=1000, tiny=400))
    trace = traces.zipf_and_scan(
        shards, bench.pick(full=60, quick=60, tiny=40) * len(shards), bench.seed
    )
    case = Case(trace, (traces.ZIPF,), len(shards))
    theirs = {fraction: case.run(S3Fifo, fraction)[0].hit_ratio for fraction in FRACTIONS}

    def side(new_policy: _NewPolicy) -> Measured:
        worst, facts = float("inf"), dict[str, Fact]()
        for fraction in FRACTIONS:
            count = case.run(new_policy, fraction)[0]
            worst = min(worst, count.hit_ratio / theirs[fraction])
            facts[f"c={fraction:.0%}: hits %"] = round(100 * count.hit_ratio, 2)
            facts[f"c={fraction:.0%}: written %"] = round(100 * count.taken_in / count.asked, 2)
        return Measured(worst, operations=len(trace), facts=facts)

    def best() -> Measured:
        return Measured(min(case.best(fraction) / theirs[fraction] for fraction in FRACTIONS))

    yield Sides(
        ours=partial(side, _ours(bench)),
        limits={"S3-FIFO": constant(1.0)},
        peers={"LRU": partial(side, Lru), "offline optimum": best},
    )


def _row(
    name: str,
    title: str,
    open_: Callable[[Bench], AbstractContextManager[Sides]],
    target: float = 0.99,
    *,
    budget_s: float,
) -> Row:
    return Row(
        f"policy.{name}",
        title,
        "x",
        target,
        open_,
        rounds=1,
        warm_up=False,
        sabotages=(Sabotage.LRU,),
        axes=("epoch", "hit ratio, %"),
        budget_s=budget_s,
    )


ROWS = (
    _row(
        "epochs",
        "one job, every shard once per epoch: hits over c, the worst c of 10..90%",
        _epochs,
        budget_s=6.0,
    ),
    _row("jobs", "2 and 4 jobs on one dataset: hits over c", _jobs, budget_s=12.0),
    _row(
        "switch",
        "a job ends, another dataset is read, from its second epoch on: hits over c",
        _switch,
        budget_s=5.0,
    ),
    _row("two_datasets", "two datasets at one time: hits over half of c", _two, budget_s=8.0),
    _row(
        "recorded",
        "epochs and validation runs as recorded from a loader: hits over c",
        _recorded,
        budget_s=4.0,
    ),
    _row(
        "scan",
        "popular shards beside as many read once: hits over those of S3-FIFO",
        _scan,
        0.95,
        budget_s=18.0,
    ),
)
