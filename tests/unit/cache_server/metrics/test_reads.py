"""What reads are counted as."""

import pytest
from prometheus_client import CollectorRegistry

from cache_server.metrics.reads import DATASETS_MAX, OTHER, ReadMetrics
from cache_server.status import dataset_namer

PREFIXES = ["s3://b/", "s3://b/deep/", "file:///fsx/"]


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def reads(registry):
    return ReadMetrics(registry, PREFIXES, dataset_namer(PREFIXES))


def test_bytes_by_dataset_and_source(reads, registry):
    reads.moved("s3://b/train/1", "local", 5)
    reads.moved("s3://b/train/2", "local", 6)
    reads.moved("s3://b/train/2", "peer", 7)

    def value(source):
        labels = {"dataset": "s3://b/train/", "source": source}
        return registry.get_sample_value("hotshard_read_bytes_total", labels)

    assert [value(source) for source in ("local", "peer", "origin")] == [11, 7, 0]


def test_datasets_are_bounded(reads, registry):
    for i in range(DATASETS_MAX + 50):
        reads.moved(f"s3://b/{i}/x", "local", 1)
    reads.moved("s3://b/0/x", "local", 1)
    samples = [
        sample
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "hotshard_read_bytes_total" and sample.labels["source"] == "local"
    ]
    by_dataset = {sample.labels["dataset"]: sample.value for sample in samples}
    assert len(by_dataset) == DATASETS_MAX + 1
    assert by_dataset[OTHER] == 50
    assert by_dataset["s3://b/0/"] == 2


def test_an_object_is_one_get_however_it_is_read(reads):
    reads.opened("s3://b/x", 100, begins=True)
    reads.opened("s3://b/x", 50, begins=False)
    usage = reads.direct(["s3://b/"])
    assert usage.requests == {"GET": 1, "HEAD": 0, "LIST": 0}
    assert usage.origin_bytes == 150


def test_reuse_under_a_lease_is_a_get_of_unknown_size(reads):
    reads.reused(["s3://b/x", "s3://b/y", "s3://elsewhere/z"])
    usage = reads.direct(["s3://b/"])
    assert usage.requests["GET"] == 2
    assert usage.origin_bytes == 0


def test_a_listing_is_a_list_for_each_thousand_entries(reads):
    reads.listed("s3://b/", 80, begins=True)
    for _ in range(62):
        reads.listed("s3://b/", 80, begins=False)  # 5,040 entries in all
    assert reads.direct(["s3://b/"]).requests["LIST"] == 1 + 62 * 80 // 1000


def test_the_longest_origin_counts_and_only_those_asked_for(reads):
    reads.described("s3://b/deep/x")
    reads.described("file:///fsx/y")
    assert reads.direct(["s3://b/"]).requests["HEAD"] == 0
    assert reads.direct(["s3://b/", "s3://b/deep/"]).requests["HEAD"] == 1
