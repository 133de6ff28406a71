"""The store's memory: what is sealed, on which disk, and how much each dataset has.

One dict from digest to one int, in which a shard's few facts are packed. That is 150 bytes a shard and
nothing to the garbage collector, which would walk a million objects for 100 ms and more at each full pass.
Strings (uri, version) live in the disk's records only.
"""

from typing import NamedTuple

from cache_server.store.options import DatasetReport

# An entry, lowest bit first. The widths are limits: 64 disks, 65,536 datasets, shards below 1 TiB.
_VERIFIED = 1
_PINNED = 2
_DISK_SHIFT, _DISK_MASK = 2, 0x3F
_DATASET_SHIFT, _DATASET_MASK = 8, 0xFFFF
_SIZE_SHIFT, _SIZE_MASK = 24, (1 << 40) - 1
_ROW_SHIFT = 64

DISKS_MAX = _DISK_MASK + 1
OTHER = "(other)"  # takes the datasets that come after the 65,535th


class Entry(NamedTuple):
    """What the index knows of a sealed shard."""

    row: int
    """Of its record on its disk; never used twice there, so it tells one stay of a shard from the next."""
    size: int
    dataset: int
    disk: int
    pinned: bool
    verified: bool

    def pack(self) -> int:
        """As one int."""
        return (
            self.row << _ROW_SHIFT
            | self.size << _SIZE_SHIFT
            | self.dataset << _DATASET_SHIFT
            | self.disk << _DISK_SHIFT
            | (_PINNED if self.pinned else 0)
            | (_VERIFIED if self.verified else 0)
        )

    @classmethod
    def unpack(cls, packed: int) -> "Entry":
        """From one int."""
        return cls(
            row=packed >> _ROW_SHIFT,
            size=packed >> _SIZE_SHIFT & _SIZE_MASK,
            dataset=packed >> _DATASET_SHIFT & _DATASET_MASK,
            disk=packed >> _DISK_SHIFT & _DISK_MASK,
            pinned=bool(packed & _PINNED),
            verified=bool(packed & _VERIFIED),
        )


class Index:
    """Sealed shards by digest. Used from the event loop only."""

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}
        self._dataset_ids: dict[str, int] = {OTHER: 0}
        self._names = [OTHER]
        self._shards = [0]
        self._bytes = [0]

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._entries

    def get(self, digest: bytes) -> Entry | None:
        """The entry of a shard."""
        packed = self._entries.get(digest)
        return None if packed is None else Entry.unpack(packed)

    def disk_of(self, digest: bytes) -> int | None:
        """The number of the disk that holds it; made for the hot path."""
        packed = self._entries.get(digest)
        return None if packed is None else packed >> _DISK_SHIFT & _DISK_MASK

    def place_of(self, digest: bytes) -> tuple[int, int] | None:
        """The numbers of its disk and of its dataset; made for the hot path."""
        packed = self._entries.get(digest)
        if packed is None:
            return None
        return packed >> _DISK_SHIFT & _DISK_MASK, packed >> _DATASET_SHIFT & _DATASET_MASK

    def add(self, digest: bytes, entry: Entry) -> None:
        """Put in a shard that is not there."""
        assert digest not in self._entries
        self._entries[digest] = entry.pack()
        self._shards[entry.dataset] += 1
        self._bytes[entry.dataset] += entry.size

    def replace(self, digest: bytes, entry: Entry) -> None:
        """Change the flags of a shard that is there."""
        assert digest in self._entries
        self._entries[digest] = entry.pack()

    def pop(self, digest: bytes) -> Entry | None:
        """Take a shard out."""
        packed = self._entries.pop(digest, None)
        if packed is None:
            return None
        entry = Entry.unpack(packed)
        self._shards[entry.dataset] -= 1
        self._bytes[entry.dataset] -= entry.size
        return entry

    def digests(self) -> list[bytes]:
        """All of them, as they are now."""
        return list(self._entries)

    def dataset_id(self, name: str) -> int:
        """The number of a dataset, new if need be."""
        known = self._dataset_ids.get(name)
        if known is not None:
            return known
        if len(self._names) > _DATASET_MASK:
            return 0
        self._dataset_ids[name] = len(self._names)
        self._names.append(name)
        self._shards.append(0)
        self._bytes.append(0)
        return len(self._names) - 1

    def dataset_name(self, number: int) -> str:
        """The name behind a number."""
        return self._names[number]

    def datasets(self) -> list[DatasetReport]:
        """Every dataset that has a sealed shard."""
        rows = zip(self._names, self._shards, self._bytes, strict=True)
        return [DatasetReport(name, shards, size) for name, shards, size in rows if shards]
