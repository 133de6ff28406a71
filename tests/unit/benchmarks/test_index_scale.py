"""The measuring code measures; the figures themselves are for a quiet machine."""

from benchmarks import index_scale


def test_start(tmp_path):
    assert index_scale.write_records(str(tmp_path), 3000, clean=True) > 0
    start = index_scale.start(str(tmp_path))
    assert start.shards == 3000
    assert start.seconds > 0


def test_unclean_start_in_a_process_of_its_own(tmp_path):
    assert index_scale.measure_unclean_start(str(tmp_path), 500).shards == 500


def test_every_way_to_describe(tmp_path):
    for name in ("sqlite", "xattr", "sidecar"):
        (tmp_path / name).mkdir()
        measure = getattr(index_scale, f"measure_{name}")
        assert measure(str(tmp_path / name), 200).seal_us > 0
