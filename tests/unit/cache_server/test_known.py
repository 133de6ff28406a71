from hypothesis import given
from hypothesis import strategies as st

from cache_server import known
from cache_server.known import KnownSizes
from cache_server.status import dataset_namer

PREFIXES = ["s3://b/", "s3://b/deep/", "file:///fsx/"]
names = st.sampled_from(["1", "x/1", "x/y/2", "deep/3", "deep/x/4", "deep/x/y/5"])


@given(st.lists(st.tuples(names, st.integers(1, 100))))
def test_it_is_the_sum_of_what_is_known(objects):
    dataset_of = dataset_namer(PREFIXES)
    sizes = KnownSizes(dataset_of)
    expected: dict[str, int] = {}
    for name, size in objects:
        uri = f"s3://b/{name}"
        sizes.add(uri, size)
        expected[dataset_of(uri)] = expected.get(dataset_of(uri), 0) + size
    assert dict(sizes.bytes) == expected
    for name, size in objects:
        sizes.add(f"s3://b/{name}", -size)
    assert dict(sizes.bytes) == {}


def test_directories_are_bounded(monkeypatch):
    monkeypatch.setattr(known, "_DIRECTORIES_MAX", 10)
    sizes = KnownSizes(lambda _: "all")
    for i in range(100):
        sizes.add(f"s3://b/{i}/x", 1)
    assert len(sizes._by_directory) <= 10
    assert sizes.bytes == {"all": 100}
