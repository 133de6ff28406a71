"""Amounts of disk."""

from cache_server.store.options import Space, StoreEvents


def test_space():
    assert Space(size=5).of(100) == 5
    assert Space(fraction=0.1).of(1001) == 100


def test_events_may_be_ignored():
    StoreEvents().evicted("space", 1, 2)
