import time

import pytest

from benchmarks.data import DataSet
from benchmarks.load.objects import Place
from benchmarks.load.targets import Files
from benchmarks.results import BenchError, WrongBytes
from benchmarks.sabotage import Sabotage
from benchmarks.training.loader import Training, epoch_batches
from benchmarks.training.models import COSMOFLOW, RESNET50, RETINANET, UNET3D, Model
from support.waiting import until

SMALL = Model("small", 8192, 0, 1, 4, 0.01, 2, 0.9)


def place(tmp_path, data):
    data.write(str(tmp_path))
    return Place(data, f"{tmp_path}/")


class Waiting:
    """Takes its time, like a disk."""

    def __init__(self, wait_s):
        self.wait_s = wait_s

    def read_into(self, uri, buffer, offset):
        time.sleep(self.wait_s)
        with open(uri, "rb") as file:
            file.seek(offset)
            return file.readinto(buffer)

    def close(self):
        pass


def run(tmp_path, wait_s, **changes):
    where = place(tmp_path, DataSet(1, 32, SMALL.record_bytes))
    return Training(Files(), where, SMALL, 7, 1 << 18, **changes).run(Waiting(wait_s), 0, 1)


def test_an_accelerator_that_is_fed_in_time_is_busy(tmp_path):
    seen = run(tmp_path, 0.0)
    assert seen.samples == 32
    assert seen.payload_bytes == 32 * SMALL.record_bytes
    until(lambda: run(tmp_path, 0.0).au > 0.5)  # once others leave us the processors


def test_an_accelerator_that_waits_is_not(tmp_path):
    # 80 ms a batch, two workers: at most 10 ms of every 40 computed.
    assert run(tmp_path, 0.02).au < 0.4
    until(lambda: (seen := run(tmp_path, 0.02)).stall_s > seen.seconds / 2)


def test_utilisation_is_what_is_computed_of_what_elapsed(tmp_path):
    seen = run(tmp_path, 0.005)
    computed_s = 7 * SMALL.step_s  # the first step is not counted
    assert seen.au == pytest.approx(computed_s / seen.seconds)
    assert seen.stall_s <= seen.seconds - computed_s


def test_slowed_loaders_starve_it(tmp_path):
    assert run(tmp_path, 0.0, sabotage=Sabotage.SLOW).au < 0.1


def test_a_wrong_byte_is_found(tmp_path):
    where = place(tmp_path, DataSet(1, 32, SMALL.record_bytes))
    for index in range(32):
        with open(where.uri(index), "r+b") as file:
            file.write(b"!")
    with pytest.raises(WrongBytes):
        Training(Files(), where, SMALL, 7, 1 << 18).run(Waiting(0.0), 0, 1)


def test_a_loader_that_fails_fails_the_run(tmp_path):
    where = Place(DataSet(1, 32, SMALL.record_bytes), f"{tmp_path}/nowhere/")
    with pytest.raises(BenchError, match="nowhere"):
        Training(Files(), where, SMALL, 7, 1 << 18).run(Waiting(0.0), 0, 1)


def test_every_sample_comes_once_per_epoch_and_orders_differ():
    data = DataSet(1, 21, 1000, stdev_bytes=300)
    first, second = (epoch_batches(SMALL, data, seed, 1 << 18) for seed in (1, 2))
    for batches in (first, second):
        reads = [read for batch in batches for read in batch]
        assert sorted(read.index for read in reads) == list(range(21))
        assert all(read.length == data.size(read.index) for read in reads)
    assert first != second


def test_batches_of_a_record_file_follow_each_other_inside_it():
    model = Model("records", 1000, 0, 10, 5, 0.01, 2, 0.9)
    batches = epoch_batches(model, DataSet(1, 3, 10_000), 1, 2048)
    assert len(batches) == 6
    for batch in batches:
        assert sum(read.length for read in batch) == 5000
        assert len({read.index for read in batch}) == 1
        assert [read.offset for read in batch] == [batch[0].offset + at for at in (0, 2048, 4096)]


@pytest.mark.parametrize("model", [UNET3D, RETINANET, RESNET50, COSMOFLOW], ids=lambda m: m.name)
def test_scaling_leaves_the_bytes_a_second(model):
    assert model.scaled(16).bytes_per_s == pytest.approx(model.bytes_per_s, rel=0.01)
    quarter = RESNET50.in_files_of(1200, batches=12)
    assert quarter.batch == 100
    assert quarter.bytes_per_s == pytest.approx(RESNET50.bytes_per_s)


def test_sizes_are_spread_as_asked_and_always_the_same():
    data = DataSet(1, 500, 10_000, stdev_bytes=2_000)
    sizes = [data.size(index) for index in range(500)]
    mean = sum(sizes) / 500
    assert mean == pytest.approx(10_000, rel=0.05)
    assert (sum((size - mean) ** 2 for size in sizes) / 500) ** 0.5 == pytest.approx(2_000, rel=0.2)
    assert sizes == [data.size(index) for index in range(500)]
    assert data.total_bytes == sum(sizes)
    data.check(3, 0, 1 << 20, data.content(3, 0, data.size(3)))
