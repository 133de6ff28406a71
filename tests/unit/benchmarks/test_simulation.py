"""The simulation keeps its books straight, at a size that takes a second."""

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.simulation.model import Cluster
from benchmarks.simulation.report import FRACTIONS, Hardware, simulate

CLUSTER = Cluster(nodes=20, shards=4000, slots=1 << 14, sampled=19, lost=0.05)


@pytest.fixture(scope="module")
def found():
    return simulate(CLUSTER)


def test_the_first_epoch_reads_everything_once(found):
    for epochs in found.epochs.values():
        assert epochs[0].origin == 1.0


def test_afterwards_the_origin_gives_what_the_disks_do_not_hold(found):
    for fraction in FRACTIONS:
        steady = found.epochs[fraction][CLUSTER.loss_epoch - 1]
        assert max(0.0, 1 - fraction) <= steady.origin + 0.01
        assert steady.origin <= max(0.0, 1 - fraction) + 0.07
        assert steady.written < 0.03


def test_what_is_gone_with_its_owner_is_read_once_more(found):
    assert 0.5 / 20 < found.moved.gone < 1.5 / 20
    epochs = found.epochs[1.2]
    assert epochs[CLUSTER.loss_epoch - 1].origin == 0.0
    assert epochs[CLUSTER.loss_epoch].origin == pytest.approx(found.moved.gone, abs=0.01)
    assert epochs[CLUSTER.loss_epoch + 1].origin < 0.01


def test_no_node_owns_much_more_than_its_part(found):
    assert 1.0 <= found.fullest <= 1.3  # 200 shards for each node: chance alone makes 1.15


def test_times_are_those_of_the_slowest_part(found):
    first = found.epochs[1.2][0]
    total = CLUSTER.total_bytes
    seconds, bound = found.seconds(first, Hardware(origin_all=1e6))
    assert (seconds, bound) == (total / 1e6, "the origin")
    assert "NIC" in found.seconds(first, Hardware(nic=1.0))[1]


def test_the_command_writes_page_and_plot(tmp_path):
    asked = ["simulate", "--into", str(tmp_path), "--nodes", "20", "--shards", "2000"]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 0, result.output
    page = (tmp_path / "SIMULATION.md").read_text()
    assert page.startswith("# Simulation: 20 nodes, 2,000 shards")
    assert "{" not in page
    assert (tmp_path / "simulation.svg").read_text().startswith("<svg")
