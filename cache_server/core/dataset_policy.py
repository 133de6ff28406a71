"""The eviction policy: which dataset gives way to which, and what of a dataset stays.

Room for a newcomer is taken from these, in this order, and from nothing else:

    idle      datasets that nobody has used for `idle_s`, the one longest idle first. One that was read
              again after a pause (a validation set, once per epoch) is given twice that time.
    replica   shards that other members own, if the newcomer is our own: the cluster as a whole keeps
              more when each member keeps what it is the only one to fetch from the origin
    stale     shards of the newcomer's own dataset that are no longer used (hit_clock.py), if the newcomer
              was asked for before (doorkeeper.py): what is read once displaces nothing
    share     the dataset that is farthest above its share, until both have the same. A dataset none of
              whose shards was ever read a second time counts eight times: a backup, a listing with
              checksums or a first epoch gets an eighth of what the others have.

If that is not enough the newcomer is not taken in. It is passed on from memory and costs the disk nothing.
So a dataset that is read once per epoch and does not fit keeps a fixed part and streams the rest.

A *visit* is one reader's way through one shard, however many opens it takes: uses of a shard within
VISIT_S, with not too many others between them, are one.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from cache_server.core.doorkeeper import Doorkeeper
from cache_server.core.eviction import DatasetUse, Shard, Victims
from cache_server.core.hit_clock import HitClock

IDLE_S = 300.0
PAUSE_MAX_S = 3600.0  # longer ones are ends
VISIT_S = 60.0
VISITS_MIN, VISITS_MAX = (
    64,
    1024,
)  # remembered for each dataset: an eighth of its shards, within these
REREADS_MIN = 8  # or a quarter of the shards, if that is less: the dataset is read again and again
UNPROVEN = 8
DATASETS_SEEN = 64  # used last, and as many used first: looked at for one decision
DATASETS_MAX = 256  # beyond, those without a resident shard are forgotten
FORGET_STEPS = 8  # looked at for each new one
SHARE_MARGIN = 64  # a 64th of the space, so that two datasets do not pass it to and fro
AGE_STEPS = 8  # of the hand, for each miss, while all residents are under suspicion


class _Source(NamedTuple):
    """Shards that a newcomer may have."""

    reason: str
    clock: HitClock
    bytes: int


class _Dataset:
    """What is known of one dataset."""

    __slots__ = (
        "aging",
        "door",
        "owned",
        "pause_s",
        "proven",
        "recent",
        "refused_s",
        "replicas",
        "rereads",
        "streamed_bytes",
        "streamed_shards",
        "used_s",
    )

    def __init__(self, now_s: float) -> None:
        self.owned = HitClock()
        self.replicas = HitClock()
        self.door: Doorkeeper | None = None
        self.recent: OrderedDict[bytes, float] = OrderedDict()
        self.used_s = now_s
        self.pause_s = 0.0
        self.refused_s = float("-inf")
        self.rereads = 0
        self.proven = False
        self.aging = 0
        self.streamed_shards = 0
        self.streamed_bytes = 0

    @property
    def size(self) -> int:
        """Bytes resident."""
        return self.owned.bytes + self.replicas.bytes

    @property
    def shards(self) -> int:
        """Resident."""
        return len(self.owned) + len(self.replicas)

    @property
    def burden(self) -> int:
        """How many times over its bytes count."""
        return 1 if self.proven else UNPROVEN

    def visited(self, digest: bytes, now_s: float) -> bool:
        """Note a use of a shard; whether it begins a visit."""
        if self.pause_s < now_s - self.used_s <= PAUSE_MAX_S:
            self.pause_s = now_s - self.used_s
        self.used_s = now_s
        recent = self.recent
        last_s = recent.get(digest)
        recent[digest] = now_s
        if last_s is not None:
            recent.move_to_end(digest)
            return now_s - last_s >= VISIT_S
        if len(recent) > min(VISITS_MAX, max(VISITS_MIN, self.shards >> 3)):
            recent.popitem(last=False)
        return True

    def reread(self) -> None:
        """A second visit to a shard."""
        if not self.proven:
            self.rereads += 1
            self.proven = self.rereads >= min(REREADS_MIN, 1 + self.shards // 4)


class DatasetPolicy:
    """See the module. Decisions are O(1): they look at twice DATASETS_SEEN datasets at most."""

    def __init__(
        self, *, owns: Callable[[bytes], bool] = lambda _: True, idle_s: float = IDLE_S
    ) -> None:
        """`owns` says whether a shard is this node's own to fetch; the answer may change with time."""
        self._owns = owns
        self._idle_s = idle_s
        self._datasets: OrderedDict[int, _Dataset] = OrderedDict()  # the one used last is the last
        self._bytes = 0
        self._shards = 0

    def __len__(self) -> int:
        return self._shards

    # What happens.

    def add(self, shard: Shard, now_s: float) -> None:
        """See EvictionPolicy."""
        self.remove(shard.digest, shard.dataset)
        known = self._datasets.get(shard.dataset) or self._new(shard.dataset, now_s)
        clock = known.owned if self._owns(shard.digest) else known.replicas
        clock.add(shard.digest, shard.size)
        self._bytes += shard.size
        self._shards += 1

    def remove(self, digest: bytes, dataset: int) -> None:
        """See EvictionPolicy."""
        known = self._datasets.get(dataset)
        if known is not None:
            size = known.owned.remove(digest) or known.replicas.remove(digest)
            self._bytes -= size
            self._shards -= size > 0

    def touch(self, digest: bytes, dataset: int, now_s: float) -> None:
        """See EvictionPolicy."""
        known = self._datasets.get(dataset)
        if known is None:
            return
        self._datasets.move_to_end(dataset)
        if not known.visited(digest, now_s):
            return
        clock = known.owned if digest in known.owned else known.replicas
        if digest in clock:
            known.reread()
            if known.door is not None:
                known.door.pass_hits += 1
            seen = clock.hit(digest)
            if seen is not None:
                self._reclass(known, seen)

    def offer(self, shard: Shard, need_bytes: int, now_s: float) -> bool:
        """See EvictionPolicy."""
        known = self._datasets.get(shard.dataset) or self._new(shard.dataset, now_s)
        self._datasets.move_to_end(shard.dataset)
        visit = known.visited(shard.digest, now_s)
        if need_bytes <= 0:
            return True
        again = visit and self._asked(known, shard.digest)
        sources = self._sources(shard, known, need_bytes, now_s, again=again)
        if _enough(sources, need_bytes):
            return True
        known.refused_s = now_s
        if visit:
            known.streamed_shards += 1
            known.streamed_bytes += shard.size
        return False

    def declare(self, dataset: int, now_s: float) -> None:
        """See EvictionPolicy."""
        (self._datasets.get(dataset) or self._new(dataset, now_s)).proven = True

    def make_way(
        self, shard: Shard, need_bytes: int, batch_bytes: int, now_s: float
    ) -> list[Victims]:
        """See EvictionPolicy."""
        known = self._datasets.get(shard.dataset) or self._new(shard.dataset, now_s)
        sources = list(self._sources(shard, known, need_bytes, now_s, again=True))
        if not _enough(iter(sources), need_bytes):
            return []
        rest_bytes, chosen = max(need_bytes, batch_bytes), []
        for source in sources:
            if rest_bytes <= 0:
                break
            before_bytes = self._bytes
            wanted_bytes = min(rest_bytes, source.bytes)
            chosen.append(self._take(source, wanted_bytes))
            rest_bytes -= before_bytes - self._bytes
        return [victims for victims in chosen if victims.digests]

    def victims(self, need_bytes: int, now_s: float) -> list[Victims]:
        """See EvictionPolicy."""
        enough_bytes = self._bytes - need_bytes
        chosen: list[Victims] = []
        for reason, known in self._in_order_of_loss(now_s):
            for clock in (known.replicas, known.owned):
                if self._bytes > enough_bytes and clock.bytes:
                    source = _Source(reason, clock, clock.bytes)
                    chosen.append(self._take(source, self._bytes - enough_bytes))
        return chosen

    def uses(self, now_s: float) -> list[DatasetUse]:
        """See EvictionPolicy."""
        return [
            DatasetUse(
                dataset=number,
                bytes=known.size,
                replica_bytes=known.replicas.bytes,
                active=not self._idle(known, now_s),
                streaming=now_s - known.refused_s < self._idle_s,
                streamed_shards=known.streamed_shards,
                streamed_bytes=known.streamed_bytes,
            )
            for number, known in self._datasets.items()
        ]

    # Who gives way.

    def _sources(
        self, shard: Shard, mine: _Dataset, need_bytes: int, now_s: float, *, again: bool
    ) -> Iterator[_Source]:
        """What the newcomer may have, the best first."""
        for other in islice(self._datasets.values(), DATASETS_SEEN):
            if other is not mine and self._idle(other, now_s):
                yield _Source("idle", other.replicas, other.replicas.bytes)
                yield _Source("idle", other.owned, other.owned.bytes)
        active = list(self._active(now_s))
        owned = self._owns(shard.digest)
        if owned and active:
            most = max(active, key=lambda other: other.replicas.bytes * other.burden)
            yield _Source("replica", most.replicas, most.replicas.bytes)
        if again:
            clock = mine.owned if owned else mine.replicas
            yield _Source("stale", clock, clock.stale_bytes)
        yield from self._surplus(shard, mine, need_bytes, active, owned=owned)

    def _surplus(
        self,
        shard: Shard,
        mine: _Dataset,
        need_bytes: int,
        active: list[_Dataset],
        *,
        owned: bool,
    ) -> Iterator[_Source]:
        """What the dataset farthest above its share can give before both have the same."""

        def clock_of(dataset: _Dataset) -> HitClock:
            return dataset.owned if owned else dataset.replicas

        others = [other for other in active if other is not mine]
        if not others:
            return
        most = max(others, key=lambda other: clock_of(other).bytes * other.burden)
        theirs = clock_of(most).bytes * most.burden
        ours = (clock_of(mine).bytes + shard.size - need_bytes) * mine.burden
        surplus_bytes = (theirs - ours) // (most.burden + mine.burden)
        if surplus_bytes - self._bytes // SHARE_MARGIN >= need_bytes:
            yield _Source("share", clock_of(most), surplus_bytes)

    def _active(self, now_s: float) -> Iterator[_Dataset]:
        """Those in use, the one used last first."""
        for known in islice(reversed(self._datasets.values()), DATASETS_SEEN):
            if not self._idle(known, now_s):
                yield known

    def _in_order_of_loss(self, now_s: float) -> Iterator[tuple[str, _Dataset]]:
        """Every dataset: idle ones first, then the largest."""
        active: list[_Dataset] = []
        for known in list(self._datasets.values()):
            if self._idle(known, now_s):
                yield "idle", known
            else:
                active.append(known)
        for known in sorted(active, key=lambda known: known.size * known.burden, reverse=True):
            yield "space", known

    def _idle(self, known: _Dataset, now_s: float) -> bool:
        return now_s - known.used_s >= max(self._idle_s, 2 * known.pause_s)

    def _take(self, source: _Source, need_bytes: int) -> Victims:
        before_bytes = source.clock.bytes
        stale = source.reason == "stale"
        digests = source.clock.take_stale(need_bytes) if stale else source.clock.take(need_bytes)
        self._bytes -= before_bytes - source.clock.bytes
        self._shards -= len(digests)
        return Victims(source.reason, digests)

    # What is known of a dataset.

    def _new(self, dataset: int, now_s: float) -> _Dataset:
        if len(self._datasets) >= DATASETS_MAX:
            for number, known in list(islice(self._datasets.items(), FORGET_STEPS)):
                if not known.shards:
                    del self._datasets[number]
        known = self._datasets[dataset] = _Dataset(now_s)
        return known

    def _asked(self, known: _Dataset, digest: bytes) -> bool:
        """A visit to a shard there is no room for; whether it was asked for before."""
        if known.door is None:
            known.door = Doorkeeper(known.shards)
        again, pass_hits = known.door.asked(digest, known.shards)
        if again and not known.shards:
            known.reread()  # else its own shards tell, and they make no mistakes
        if pass_hits is not None and pass_hits < known.shards:
            # All that is not here was asked for twice; if all that is here were used as much, it would make
            # two hits for each shard. Two rounds of the hand without a use make an entry stale; one is a
            # warning.
            known.aging = known.shards * (1 if pass_hits else 2)
        for clock in (known.owned, known.replicas):
            for _ in range(min(AGE_STEPS, known.aging, len(clock))):
                clock.age()
        known.aging = max(0, known.aging - AGE_STEPS)
        return again

    def _reclass(self, known: _Dataset, digest: bytes) -> None:
        """Placement may have changed since a shard came: look again, one shard at a time."""
        right, wrong = known.replicas, known.owned
        if self._owns(digest):
            right, wrong = wrong, right
        size = wrong.remove(digest)
        if size:
            right.add(digest, size)


def _enough(sources: Iterator[_Source], need_bytes: int) -> bool:
    for source in sources:
        need_bytes -= source.bytes
        if need_bytes <= 0:
            return True
    return False
