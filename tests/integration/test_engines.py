"""The comparison of engines: each one runs and fetches all of its load."""

from typing import Any

import pytest

from benchmarks.engines import ENGINES, Figure, Load, measure, upload
from hotshard.cli.s3_server import SeaweedS3


def test_a_load_covers_its_objects() -> None:
    load = Load("b", ("x", "y"), object_bytes=10, range_bytes=4, in_flight=1)
    assert [r for r in load.ranges() if r[0] == "y"] == [("y", 0, 4), ("y", 4, 4), ("y", 8, 2)]
    assert load.total_bytes == 20


def test_a_figure_is_speed_and_price() -> None:
    figure = Figure(seconds=2.0, cpu_s=1.0, total_bytes=4_000_000_000, objects=8)
    assert (figure.gb_per_s, figure.objects_per_s, figure.cpu_s_per_gb) == (2.0, 4.0, 0.25)


# "whole" fetches no ranges and "redis" wants a server of its own: the rows peers.* run these two.
RANGED = [engine for engine in ENGINES if engine not in ("whole", "redis")]


@pytest.mark.slow
@pytest.mark.parametrize("engine", RANGED)
def test_every_engine_fetches_everything(
    s3: SeaweedS3, bucket: tuple[Any, str], engine: str
) -> None:
    if engine == "s3fs":
        pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'hotshard[peers]'")
    boto, name = bucket
    keys = upload(boto, name, 4, 100_000)
    for range_bytes in (100_000, 30_000):
        load = Load(name, keys, 100_000, range_bytes, in_flight=3)
        figure = measure(engine, load, dict(s3.environment))
        assert (figure.total_bytes, figure.objects) == (400_000, 4)
