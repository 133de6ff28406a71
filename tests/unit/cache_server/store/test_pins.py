"""Which uris a set of pins covers."""

from cache_server.store.pins import Pins


def test_pins():
    pins = Pins()
    assert not pins.covers("s3://b/k")
    pins.set(["s3://b/x/", "s3://b/k", "s3://b/k"])
    assert pins.as_list() == ["s3://b/k", "s3://b/x/"]
    assert pins.covers("s3://b/k")
    assert not pins.covers("s3://b/k2")
    assert pins.covers("s3://b/x/y/z")
    assert not pins.covers("s3://b/xy")
