import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data import DataSet
from benchmarks.load.workloads import Kind, Workload, shuffled_epochs, zipf

DATA = DataSet(seed=1, count=10, object_bytes=10_000)


@pytest.mark.parametrize("kind", list(Kind))
@given(rank=st.integers(0, 3), read_bytes=st.sampled_from([512, 4096, 10_000, 1 << 20]))
def test_reads_lie_inside_the_objects_and_repeat_with_the_seed(kind, rank, read_bytes):
    workload = Workload(kind, read_bytes, seed=5)
    reads = list(islice(workload.reads(DATA, rank, 4), 100))
    assert reads == list(islice(workload.reads(DATA, rank, 4), 100))
    for read in reads:
        assert 0 <= read.index < DATA.count
        assert read.length > 0
        assert read.offset % read_bytes == 0
        assert read.offset + read.length <= DATA.object_bytes


@given(st.integers(1, 50), st.integers(1, 5), st.integers(0, 9))
def test_all_ranks_together_see_each_object_once_per_epoch(objects, ranks, seed):
    seen: list[int] = []
    for rank in range(ranks):
        share = len(range(rank, objects, ranks))
        seen += islice(shuffled_epochs(objects, rank, ranks, seed), share)
    assert sorted(seen) == list(range(objects))


def test_epochs_are_shuffled_anew():
    objects = shuffled_epochs(100, 0, 1, 3)
    assert list(islice(objects, 100)) != list(islice(objects, 100))


def test_an_epoch_reads_every_byte_once():
    workload = Workload(Kind.EPOCHS, 4096, seed=2)
    reads = list(islice(workload.reads(DATA, 0, 1), 30))  # 3 reads for each of 10 objects
    assert sum(read.length for read in reads) == DATA.total_bytes
    assert len(set(reads)) == 30


def test_zipf_prefers_the_first_objects_as_much_as_it_says():
    drawn = Counter(islice(zipf(100, 1.0, random.Random(1)), 20_000))
    harmonic = sum(1 / n for n in range(1, 101))
    assert drawn[0] / 20_000 == pytest.approx(1 / harmonic, rel=0.1)
    assert drawn[9] / 20_000 == pytest.approx(1 / 10 / harmonic, rel=0.3)


def test_ranks_of_random_workloads_differ():
    workload = Workload(Kind.RANDOM, 512, seed=5)
    one, two = (list(islice(workload.reads(DATA, rank, 2), 50)) for rank in range(2))
    assert one != two
