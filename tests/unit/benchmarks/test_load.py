import os
import time
from contextlib import closing

import pytest

from benchmarks.data import DataSet
from benchmarks.load.crew import Crew, Load, together
from benchmarks.load.latency import percentiles_ns
from benchmarks.load.loops import check_reads, closed_loop, open_loop
from benchmarks.load.objects import Place
from benchmarks.load.targets import CacheClient, DirectS3, Files, Sabotaged, TargetSpec
from benchmarks.load.workloads import Kind, Workload
from benchmarks.results import BenchError, WrongBytes
from benchmarks.rows.scene import in_s3
from benchmarks.sabotage import Sabotage
from support.waiting import until

DATA = DataSet(seed=3, count=4, object_bytes=256 << 10)
WORKLOAD = Workload(Kind.EPOCHS, 64 << 10, seed=4)


@pytest.fixture
def place(tmp_path):
    DATA.write(str(tmp_path))
    return Place(DATA, f"file://{tmp_path}/")


class Stalling:
    """Answers at once, but for one call."""

    def __init__(self, stall_s):
        self.stall_s = stall_s
        self.calls = 0

    def read_into(self, uri, buffer, offset):
        self.calls += 1
        if self.calls == 10:
            time.sleep(self.stall_s)
        return len(buffer)

    def close(self):
        pass


def test_an_open_loop_charges_a_stall_to_every_call_that_had_to_wait(place):
    reads = WORKLOAD.reads(DATA, 0, 1)
    tally = open_loop(Stalling(0.2), place, reads, seconds=0.5, rate=200)
    assert tally.operations == 100
    late = sum(each > 50e6 for each in tally.latencies_ns)
    assert late >= 25  # 0.2 s at 200/s is 40 calls; the first 30 of them are over 50 ms late


def test_a_closed_loop_sees_only_the_stall_itself(place):
    def late():
        reads = WORKLOAD.reads(DATA, 0, 1)
        tally = closed_loop(Stalling(0.1), place, reads, seconds=0.2)
        assert tally.payload_bytes == tally.operations * WORKLOAD.read_bytes
        return sum(each > 50e6 for each in tally.latencies_ns)

    until(lambda: 1 <= late() <= 2)  # once others leave us the processors


def test_a_crew_reads_together_again_and_again(place):
    with Crew(Load(Files(), place, WORKLOAD, seconds=0.05), 2) as crew:
        for _ in range(2):
            taken = together(crew.run())
            assert taken.payload_bytes == taken.operations * WORKLOAD.read_bytes > 0
            assert taken.cpu_s["client"] > 0
            assert percentiles_ns(taken.histogram)[50.0] > 0


def test_a_crew_at_a_rate_makes_so_many_calls(place):
    with Crew(Load(Files(), place, WORKLOAD, seconds=0.2, rate=200), 2) as crew:
        assert together(crew.run()).operations == 40


def test_a_wrong_byte_in_any_process_fails_the_run(place):
    load = Load(Sabotaged(Files(), Sabotage.FLIP), place, WORKLOAD, seconds=0.05)
    with Crew(load, 2) as crew, pytest.raises(WrongBytes):
        crew.run()


def test_a_slow_target_shows(place):
    slow = Load(Sabotaged(Files(), Sabotage.SLOW), place, WORKLOAD, seconds=0.05)
    with Crew(slow, 1) as slowed, Crew(Load(Files(), place, WORKLOAD, seconds=0.05), 1) as crew:
        until(lambda: together(slowed.run()).value < together(crew.run()).value / 5)


def test_a_target_that_cannot_be_opened_or_read_fails_the_run(place):
    os.unlink(place.uri(0).removeprefix("file://"))
    load = Load(Files(), place, WORKLOAD, seconds=0.05)
    with Crew(load, 1) as crew, pytest.raises(BenchError, match="FileNotFoundError"):
        crew.run()


@pytest.mark.slow
def test_every_target_reads_the_same_bytes(tmp_path, monkeypatch):
    with in_s3(str(tmp_path), DATA) as remote, remote.cold_node() as node:
        environment = tuple(remote.server.environment.items())
        for name, value in environment:  # not those of the S3 server that other tests share
            monkeypatch.setenv(name, value)
        specs: list[TargetSpec] = [
            CacheClient(node.socket),
            CacheClient(node.grpc),
            DirectS3(remote.bucket, environment),
        ]
        for spec in specs:
            with closing(spec.open()) as target:
                check_reads(target, remote.place, WORKLOAD.reads(DATA, 0, 1))
