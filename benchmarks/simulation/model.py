"""A cluster that trains for some epochs, without bytes: who owns what, who keeps what, who sends what.

Real: the table of owners (`hotshard.core.placement`), the digests, the eviction policy (`DatasetPolicy`)
and the fetch plan (a reader asks the first owner; the owner has the shard, or asks who owned it before the
last change, or reads it from the origin). A model: time, and readers that are dealt all shards of an epoch
in a new random order, each shard to one node.

Placement is computed for every node and every shard. What a node keeps is replayed for a sample of nodes,
through the policy: every read of its pods and of other members, in a random order. Nothing is written down
per shard beyond its digest's slot, so ten million shards fit.
"""

import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.core.eviction import Shard
from hotshard.core.blocks import shard_digest
from hotshard.core.placement import Placement
from hotshard.core.slots import Table

EPOCH_S = 3600.0  # of the policy's clock
DATASET = 1


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is simulated."""

    nodes: int = 1000
    shards: int = 10_000_000
    shard_bytes: int = 32 << 20
    slots: int = 1 << 17
    seed: int = 20260917
    sampled: int = 32
    """Nodes whose policy is replayed."""
    epochs: int = 6
    loss_epoch: int = 4
    """The epoch, counted from 0, before which nodes are lost."""
    lost: float = 0.01

    @property
    def total_bytes(self) -> int:
        """Of the dataset."""
        return self.shards * self.shard_bytes


class Epoch(NamedTuple):
    """One epoch of the whole cluster, estimated from the sampled nodes."""

    origin: float
    """Bytes from the origin, as a part of the dataset."""
    written: float
    """Bytes written to the disks, likewise."""
    replica_hits: float
    """Reads of what others own that found a replica, as a part of all reads."""


class Slots:
    """Every shard's slot, and how many there are in each."""

    def __init__(self, cluster: Cluster) -> None:
        self.of_shard = array("I", bytes(4 * cluster.shards))
        self.counts = [0] * cluster.slots
        shift = 32 - (cluster.slots.bit_length() - 1)
        for number in range(cluster.shards):
            slot = int.from_bytes(digest_of(number)[:4], "big") >> shift
            self.of_shard[number] = slot
            self.counts[slot] += 1


def digest_of(number: int) -> bytes:
    """Of one shard of the dataset, an object of its own."""
    return shard_digest(f"s3://data/train/{number:08d}.tar", "v", 0)


def member(number: int) -> str:
    """A node's id."""
    return blake2b(b"%d" % number, digest_size=16).hexdigest()


class Ownership:
    """The table before and after the loss."""

    def __init__(self, cluster: Cluster) -> None:
        ids = [member(number) for number in range(cluster.nodes)]
        placement = Placement(slots=cluster.slots)
        placement.change(dict.fromkeys(ids, 100), ())
        self.before = placement.table()
        count = max(1, round(cluster.nodes * cluster.lost))
        self.lost = frozenset(random.Random(cluster.seed).sample(ids, count))
        placement.change({}, self.lost)
        self.after = placement.table()


def owned_by(table: Table, counts: Sequence[int]) -> dict[str, int]:
    """How many shards each node is the first owner of."""
    owned = dict.fromkeys(table.ids, 0)
    for slot, count in enumerate(counts):
        owned[table.ids[table.rows[slot * table.width]]] += count
    return owned


class Moved(NamedTuple):
    """What a loss does to ownership, as parts of all shards."""

    gone: float
    """Shards whose owner is lost: nobody has them."""
    other: float
    """Shards that came to another owner although theirs is alive: it is asked before the origin."""


def moved(ownership: Ownership, counts: Sequence[int]) -> Moved:
    """Compare the two tables."""
    gone = other = 0
    before, after = ownership.before, ownership.after
    for slot, count in enumerate(counts):
        old = before.ids[before.rows[slot * before.width]]
        if old in ownership.lost:
            gone += count
        elif old != after.ids[after.rows[slot * after.width]]:
            other += count
    total = sum(counts)
    return Moved(gone / total, other / total)


class Sample:
    """The nodes that are replayed, and what they own, before and after the loss.

    None of them is lost. By how much they own they stand at even distances, so that the sample owns what
    the mean of all does.
    """

    def __init__(self, cluster: Cluster, slots: Slots, ownership: Ownership) -> None:
        owned = owned_by(ownership.before, slots.counts)
        alive = sorted(set(owned) - ownership.lost, key=lambda id_: (owned[id_], id_))
        count = min(len(alive), cluster.sampled)
        self.ids = [alive[(2 * place + 1) * len(alive) // (2 * count)] for place in range(count)]
        self.before = self._owned(ownership.before, slots)
        self.after = self._owned(ownership.after, slots)

    def _owned(self, table: Table, slots: Slots) -> dict[str, "array[int]"]:
        found = {id_: array("I") for id_ in self.ids}
        owners = [found.get(table.ids[row]) for row in table.rows[:: table.width]]
        for number, slot in enumerate(slots.of_shard):
            owned = owners[slot]
            if owned is not None:
                owned.append(number)
        return found


class Member:
    """One node that is replayed: its policy, and a disk of so many shards."""

    def __init__(self, id_: str, cluster: Cluster, ownership: Ownership, fraction: float) -> None:
        self._cluster = cluster
        self._ownership = ownership
        self._capacity = round(cluster.shards * fraction / cluster.nodes)
        self._id = id_
        self._table = ownership.before
        self._there: set[bytes] = set()
        self._policy = DatasetPolicy(owns=self._owns)
        self.epochs: list[tuple[int, int, int, int]] = []
        """(read from the origin, written, replica hits, shards asked of it) of each epoch."""

    def _owns(self, digest: bytes) -> bool:
        return self._table.owner(digest) == self._id

    def run(self, sample: Sample) -> None:
        """All epochs."""
        for epoch in range(self._cluster.epochs):
            before = epoch < self._cluster.loss_epoch
            self._table = self._ownership.before if before else self._ownership.after
            self._epoch(epoch, (sample.before if before else sample.after)[self._id])

    def _epoch(self, epoch: int, owned: "array[int]") -> None:
        """Every shard we own is asked for once, by somebody; our pods read their part of all."""
        cluster = self._cluster
        rng = random.Random(f"{cluster.seed}/{epoch}/{self._id}")
        read = rng.sample(range(cluster.shards), cluster.shards // len(self._table.ids))
        ours = set(owned)
        visits = list(ours.union(read))
        rng.shuffle(visits)
        origin = written = replica_hits = 0
        for place, number in enumerate(visits):
            digest = digest_of(number)
            now_s = (epoch + place / len(visits)) * EPOCH_S
            if digest in self._there:
                self._policy.touch(digest, DATASET, now_s)
                replica_hits += number not in ours
                continue
            written += self._take_in(digest, now_s)
            origin += number in ours and self._nobody_has(digest, epoch)
        self.epochs.append((origin, written, replica_hits, len(owned)))

    def _take_in(self, digest: bytes, now_s: float) -> bool:
        """Offer a shard that is not here; whether it is kept. Sizes are counted in shards."""
        shard = Shard(digest, 1, DATASET)
        need = max(0, len(self._there) + 1 - self._capacity)
        if not self._policy.offer(shard, need, now_s):
            return False
        if need:
            for victims in self._policy.make_way(shard, need, need, now_s):
                self._there.difference_update(victims.digests)
        if len(self._there) >= self._capacity:
            return False
        self._there.add(digest)
        self._policy.add(shard, now_s)
        return True

    def _nobody_has(self, digest: bytes, epoch: int) -> bool:
        """Whether an owner must read it from the origin: no owner from before the loss has it.

        The one from before has it only if it was kept there; that is so for as large a part of its
        shards as the disks hold.
        """
        if epoch != self._cluster.loss_epoch:
            return True
        before = self._ownership.before.owner(digest)
        if before == self._id or before in self._ownership.lost:
            return True
        kept = min(1.0, self._capacity * self._cluster.nodes / self._cluster.shards)
        return int.from_bytes(digest[4:8], "big") / 2**32 >= kept


def run(cluster: Cluster, sample: Sample, ownership: Ownership, fraction: float) -> list[Epoch]:
    """All epochs, with disks that hold a fraction of the dataset."""
    members = [Member(id_, cluster, ownership, fraction) for id_ in sample.ids]
    for each in members:
        each.run(sample)
    found = []
    for epoch in range(cluster.epochs):
        rows = [each.epochs[epoch] for each in members]
        asked = sum(row[3] for row in rows)
        found.append(Epoch(*(sum(row[i] for row in rows) / asked for i in range(3))))
    return found
