"""Slots and members, matched: the machinery of hotshard.core.placement, where the idea is explained."""

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from hashlib import shake_128
from itertools import count

from hotshard.core.slots import Table, little_endian

DEPTH = 16
"""Darts that hit a slot, on average, before we stop throwing. Fewer than `replicas` different members among
them is a matter of one slot in 10^6, and then a deeper matching is made."""
_CHUNK = 256  # darts per call of the hash
_JITTER_BITS = 14  # what a 32-bit dart has left when the slot took its 18
_SCALE_BITS = 10  # 2^10 > WEIGHT_MAX: two darts of one member never share a time
_UNIT = 1 << (_JITTER_BITS + _SCALE_BITS)  # of time: a member of weight 1 throws one dart in it
_MEMBER_BITS = 16
_MEMBER = (1 << _MEMBER_BITS) - 1
_NOBODY = (1 << 64) - 1


def load_cap(slots: int, weight: int, total_weight: int) -> int:
    """How many slots a member may own in the first rank.

    A dozen more than its share, which is enough room for the matching to move little on a change; but never
    more than a tenth over, and at least a fiftieth, which would cost movement and gain nothing.
    """
    share = slots * weight  # of total_weight
    room = min(share // 10, max(share // 50, 12 * total_weight))
    return max(-(-share // total_weight), (share + room) // total_weight)


class Matching:
    """Slots and members, matched, and every dart thrown before `_horizon`.

    A pair of slot and member is a key: the time of the dart and, in the low bits, the member's number.
    Keys of one slot compare as its preference; equal times are the one exception, see `_before`.
    """

    def __init__(self, slots: int, weights: Mapping[str, int], replicas: int, depth: int) -> None:
        self._slots = slots
        self._replicas = replicas
        self._depth = depth
        self._width = min(replicas, len(weights))
        self._horizon = _horizon(slots, weights, self._width, depth)
        self._ids: list[str] = []  # by number; "" where one is free
        self._numbers: dict[str, int] = {}
        self._free: list[int] = []
        self._weights: dict[str, int] = {}
        self._liked = [array("Q") for _ in range(slots)]  # best first
        self._owner = array("Q", [_NOBODY]) * slots  # the key of the pair each slot is in
        self._load: list[int] = []
        self._cap: list[int] = []
        # Heaps by member, made when first needed; entries that are no longer true are skipped.
        self._worst: dict[int, list[tuple[int, int]]] = {}  # (-key, slot) of what it owns
        self._waiting: dict[int, list[tuple[int, int]]] = {}  # (key, slot) of who prefers it
        self._rows = array("H", [0]) * (slots * self._width)
        self._dirty: set[int] = set(range(slots))  # their rows have to be made anew
        self._homeless: list[int] = []  # slots that may find a better owner
        self._roomy: list[int] = []  # members with room which slots may wait for
        self.complete = True
        for id_ in sorted(weights):
            number = self._number(id_, weights[id_])
            for slot, time in self._darts(number):
                self._liked[slot].append(time | number)
        self._liked = [array("Q", sorted(keys)) for keys in self._liked]
        self._cap = self._caps()
        self._settle(list(range(slots)) if weights else [])

    def fits(self, weights: Mapping[str, int]) -> bool:
        """Whether enough darts were thrown for these members, and not far too many."""
        width = min(self._replicas, len(weights))
        if not weights or width != self._width:
            return False
        wanted = _horizon(self._slots, weights, width, self._depth)
        return wanted <= self._horizon * 5 // 4 and self._horizon <= wanted * 5 // 2

    def change(self, joined: Mapping[str, int], left: Iterable[tuple[str, int]]) -> None:
        """Take members out and in, and match again."""
        homeless: list[int] = []
        for id_, _ in left:
            homeless += self._remove(id_)
        for id_, weight in joined.items():
            self._add(id_, weight)
        self._settle(homeless)

    def table(self) -> Table:
        """A copy in the form that does not depend on history."""
        ids = tuple(sorted(self._numbers))
        position = [0] * len(self._ids)
        for i, id_ in enumerate(ids):
            position[self._numbers[id_]] = i
        rows = array("H", map(position.__getitem__, self._rows))
        return Table(self._slots, ids, self._width, rows)

    # -- members -----------------------------------------------------------------------------------

    def _number(self, id_: str, weight: int) -> int:
        if self._free:
            number = self._free.pop()
            self._ids[number] = id_
        else:
            number = len(self._ids)
            self._ids.append(id_)
            self._load.append(0)
            self._cap.append(0)
        self._numbers[id_] = number
        self._weights[id_] = weight
        return number

    def _add(self, id_: str, weight: int) -> None:
        number = self._number(id_, weight)
        for slot, time in self._darts(number):
            liked = self._liked[slot]
            place = bisect_left(liked, time)
            while place < len(liked) and self._before(liked[place], time | number):
                place += 1
            liked.insert(place, time | number)
            if place <= self._width:
                self._dirty.add(slot)

    def _remove(self, id_: str) -> list[int]:
        """Returns the slots that it owned."""
        number = self._numbers[id_]
        homeless = []
        for slot, time in self._darts(number):
            key = time | number
            place = self._liked[slot].index(key)
            self._liked[slot].pop(place)
            if place <= self._width:
                self._dirty.add(slot)
            if self._owner[slot] == key:
                self._owner[slot] = _NOBODY
                homeless.append(slot)
        del self._numbers[id_], self._weights[id_]
        self._worst.pop(number, None)
        self._waiting.pop(number, None)
        self._ids[number] = ""
        self._load[number] = self._cap[number] = 0
        self._free.append(number)
        return homeless

    def _darts(self, number: int) -> Iterator[tuple[int, int]]:
        id_ = self._ids[number]
        return _darts(id_, self._weights[id_], self._slots, self._horizon)

    def _before(self, key: int, other: int) -> bool:
        """Whether a slot prefers `key`. Numbers depend on history; so equal times go by id."""
        if key >> _MEMBER_BITS != other >> _MEMBER_BITS or _NOBODY in (key, other):
            return key < other
        return self._ids[key & _MEMBER] < self._ids[other & _MEMBER]

    def _caps(self) -> list[int]:
        total = sum(self._weights.values())
        caps = [0] * len(self._ids)
        for id_, number in self._numbers.items():
            caps[number] = load_cap(self._slots, self._weights[id_], total)
        return caps

    # -- the matching ------------------------------------------------------------------------------

    def _settle(self, homeless: list[int]) -> None:
        """Match until nothing changes; `homeless` are the slots without an owner.

        Each step puts a slot and a member together that both prefer it to what they have, and so makes the
        sorted list of the times of all pairs smaller: it ends. It ends in a stable matching, because a
        member that was full, and turned slots away, is looked at again as soon as it is not.
        """
        self._homeless, self._roomy = homeless, []
        for number, cap in enumerate(self._caps()):
            if cap > self._cap[number] == self._load[number]:
                self._roomy.append(number)
            self._cap[number] = cap
            while self._load[number] > cap:
                self._release_worst(number)
        while self._roomy or self._homeless:
            if self._roomy:
                self._fill(self._roomy.pop())
            else:
                self._house(self._homeless.pop())
        self.complete = all(self._make_row(slot) for slot in self._dirty)
        self._dirty.clear()

    def _house(self, slot: int) -> None:
        """Give a slot to the first member that has room or likes it better than its worst one.

        There may be none for the moment; the slot is then found by the member that gets room (`_fill`),
        and it may have been found by one already that is not the best it can have.
        """
        for key in self._liked[slot]:
            if key == self._owner[slot]:
                return
            if self._wants(key):
                self._pair(slot, key)
                return
            if key & _MEMBER in self._waiting:
                heapq.heappush(self._waiting[key & _MEMBER], (key, slot))
        self._dirty.add(slot)

    def _fill(self, number: int) -> None:
        """Give a member the slots that prefer it to their owners, best first."""
        waiting = self._waiting.get(number)
        if waiting is None:
            waiting = [
                (time | number, slot)
                for slot, time in self._darts(number)
                if self._before(time | number, self._owner[slot])
            ]
            self._waiting[number] = waiting  # sorted, so a heap
        while waiting:
            key, slot = waiting[0]
            if self._before(key, self._owner[slot]):
                if not self._wants(key):
                    return
                self._pair(slot, key)
            heapq.heappop(waiting)

    def _wants(self, key: int) -> bool:
        """Whether a member would take a slot that it does not own."""
        number = key & _MEMBER
        return self._load[number] < self._cap[number] or key < self._worst_key(number)

    def _pair(self, slot: int, key: int) -> None:
        """Put two together; what they had before is left alone and looked at again."""
        number = key & _MEMBER
        if self._load[number] >= self._cap[number]:
            self._release_worst(number)
        old = self._owner[slot]
        if old != _NOBODY:
            other = old & _MEMBER
            if self._load[other] == self._cap[other]:
                self._roomy.append(other)
            self._load[other] -= 1
        self._owner[slot] = key
        self._load[number] += 1
        self._dirty.add(slot)
        if number in self._worst:
            heapq.heappush(self._worst[number], (-key, slot))

    def _release_worst(self, number: int) -> None:
        self._worst_key(number)
        _, slot = heapq.heappop(self._worst[number])
        self._owner[slot] = _NOBODY
        self._load[number] -= 1
        self._homeless.append(slot)

    def _worst_key(self, number: int) -> int:
        """The pair that a member would give up first."""
        heap = self._worst.get(number)
        if heap is None:
            heap = [
                (-(time | number), slot)
                for slot, time in self._darts(number)
                if self._owner[slot] == time | number
            ]
            heapq.heapify(heap)
            self._worst[number] = heap
        while self._owner[heap[0][1]] != -heap[0][0]:
            heapq.heappop(heap)
        return -heap[0][0]

    def _make_row(self, slot: int) -> bool:
        """Write down a slot's owners; False: more darts are needed to know them."""
        owner, liked = self._owner[slot], self._liked[slot]
        if owner == _NOBODY or len(liked) < self._width:
            return not self._width
        others = [key & _MEMBER for key in liked[: self._width] if key != owner]
        row = [owner & _MEMBER, *others][: self._width]
        self._rows[slot * self._width : (slot + 1) * self._width] = array("H", row)
        return True


def _horizon(slots: int, weights: Mapping[str, int], width: int, depth: int) -> int:
    """Until when to throw, so that every slot is hit by `width` different members.

    The heaviest may take all of the first ranks, so they do not count for the last one.
    """
    light = sum(sorted(weights.values())[: len(weights) - max(0, width - 1)])
    return depth * slots * _UNIT // light if light else 0


def _darts(id_: str, weight: int, slots: int, horizon: int) -> Iterator[tuple[int, int]]:
    """The slots that a member hits, in order, and the time of the first hit, ready to take its number.

    Bits of a dart, highest first: slot, jitter of its time. The jitter is there because all members throw
    their first dart in the same unit of time, and none should be earlier than others for ever.
    """
    shift = 32 - (slots.bit_length() - 1)
    jitter_shift = shift - _JITTER_BITS
    mask = (1 << _JITTER_BITS) - 1
    hit = bytearray(slots)
    left = slots
    for chunk in count():
        words = array("I", shake_128(f"{id_}\0{chunk}".encode()).digest(4 * _CHUNK))
        for j, word in enumerate(little_endian(words), chunk * _CHUNK):
            slot = word >> shift
            if hit[slot]:
                continue
            time = ((j << _JITTER_BITS | word >> jitter_shift & mask) << _SCALE_BITS) // weight
            if time >= horizon:
                return
            hit[slot] = 1
            left -= 1
            yield slot, time << _MEMBER_BITS
        if not left:
            return
