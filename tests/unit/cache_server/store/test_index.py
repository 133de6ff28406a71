"""The index in memory."""

import gc
import sys

from hypothesis import given
from hypothesis import strategies as st

from cache_server.store.index import DISKS_MAX, OTHER, Entry, Index

ENTRIES = st.builds(
    Entry,
    row=st.integers(1, 2**48),
    size=st.integers(0, 2**40 - 1),
    dataset=st.integers(0, 2**16 - 1),
    disk=st.integers(0, DISKS_MAX - 1),
    pinned=st.booleans(),
    verified=st.booleans(),
)


@given(ENTRIES)
def test_packing_loses_nothing(entry):
    assert Entry.unpack(entry.pack()) == entry


def make_entry(**changes) -> Entry:
    entry = Entry(row=1, size=10, dataset=0, disk=0, pinned=False, verified=True)
    return entry._replace(**changes)


def test_datasets_are_counted_and_forgotten():
    index = Index()
    train = index.dataset_id("train")
    assert index.dataset_id("train") == train
    assert index.dataset_name(train) == "train"
    index.add(b"a", make_entry(dataset=train))
    index.add(b"b", make_entry(dataset=train, size=5, disk=3))
    assert [(d.name, d.shards, d.bytes) for d in index.datasets()] == [("train", 2, 15)]
    assert index.digests() == [b"a", b"b"]
    assert index.disk_of(b"b") == 3
    assert index.pop(b"b") == make_entry(dataset=train, size=5, disk=3)
    assert index.pop(b"b") is None
    assert index.disk_of(b"b") is None
    assert [(d.name, d.shards, d.bytes) for d in index.datasets()] == [("train", 1, 10)]


def test_too_many_datasets_share_one():
    index = Index()
    ids = [index.dataset_id(f"d{n}") for n in range(70_000)]
    assert max(ids) == 65_535
    assert index.dataset_name(ids[-1]) == OTHER


def test_memory_and_garbage_collection():
    index = Index()
    for number in range(50_000):
        index.add(number.to_bytes(16, "big"), make_entry(row=number + 1, size=102_400))
    per_shard = sys.getsizeof(index._entries) / 50_000 + 64 + 48
    assert per_shard < 220
    assert not gc.is_tracked(index._entries)
