"""A cache without bytes: replays a trace through an eviction policy and counts.

The cache is the store's rules and nothing else: what fits is taken in, else the policy is offered the
shard and, if it wants it, evicts for it. `minimum` is the offline optimum for shards of one size that need
not be taken in: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM
Systems Journal 1966, with bypass.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from cache_server.core.eviction import EvictionPolicy, Shard


class Access(NamedTuple):
    """One visit to a shard."""

    at_s: float
    shard: Shard
    phase: int
    """Results are counted for each: an epoch, a part of a mix."""


@dataclass(slots=True)
class Count:
    """What happened in one phase."""

    asked: int = 0
    hits: int = 0
    taken_in: int = 0
    """Shards written to the disk."""

    @property
    def hit_ratio(self) -> float:
        """Of the visits."""
        return self.hits / self.asked if self.asked else 0.0


@dataclass(slots=True)
class Replayed:
    """A trace that has been replayed."""

    phases: dict[int, Count] = field(default_factory=lambda: defaultdict(Count))
    used_max_bytes: int = 0

    def total(self, phases: Iterable[int]) -> Count:
        """Some phases together."""
        parts = [self.phases[phase] for phase in phases]
        return Count(
            sum(part.asked for part in parts),
            sum(part.hits for part in parts),
            sum(part.taken_in for part in parts),
        )


def replay(trace: Iterable[Access], policy: EvictionPolicy, capacity_bytes: int) -> Replayed:
    """Run a trace through a policy."""
    found = Replayed()
    there: dict[bytes, int] = {}
    used_bytes = 0
    for at_s, shard, phase in trace:
        count = found.phases[phase]
        count.asked += 1
        if shard.digest in there:
            count.hits += 1
            policy.touch(shard.digest, shard.dataset, at_s)
            continue
        need_bytes = max(0, used_bytes + shard.size - capacity_bytes)
        if not policy.offer(shard, need_bytes, at_s):
            continue
        for victims in policy.make_way(shard, need_bytes, need_bytes, at_s) if need_bytes else ():
            for digest in victims.digests:
                used_bytes -= there.pop(digest)
        if used_bytes + shard.size <= capacity_bytes:
            there[shard.digest] = shard.size
            used_bytes += shard.size
            found.used_max_bytes = max(found.used_max_bytes, used_bytes)
            policy.add(shard, at_s)
            count.taken_in += 1
    return found


def minimum(trace: Sequence[Access], capacity_shards: int) -> Replayed:
    """The most hits that any policy can have, with the future known; shards all of one size."""
    never = len(trace)
    following = [never] * len(trace)
    last: dict[bytes, int] = {}
    for number in range(len(trace) - 1, -1, -1):
        digest = trace[number].shard.digest
        following[number] = last.get(digest, never)
        last[digest] = number
    found = Replayed()
    next_use: dict[bytes, int] = {}  # of what is there
    farthest: list[
        tuple[int, bytes]
    ] = []  # a heap of (-next use, digest); entries may be out of date
    for number, access in enumerate(trace):
        count = found.phases[access.phase]
        count.asked += 1
        digest = access.shard.digest
        there = digest in next_use
        count.hits += there
        next_use[digest] = following[number]
        heappush(farthest, (-following[number], digest))
        count.taken_in += not there
        while len(next_use) > capacity_shards:
            when, candidate = heappop(farthest)
            if next_use.get(candidate) == -when:
                del next_use[candidate]
                count.taken_in -= candidate == digest  # it never came in
    return found
