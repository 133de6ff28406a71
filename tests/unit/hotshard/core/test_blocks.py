from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.core.blocks import Geometry, runs, shard_digest

geometries = st.builds(
    lambda block, factor: Geometry(shard_bytes=block * factor, block_bytes=block),
    st.integers(1, 64),
    st.integers(1, 8),
)


@given(geometries, st.integers(0, 5000), st.integers(0, 6000), st.integers(0, 6000))
def test_pieces_cover_the_range_exactly_once(geometry, size, offset, length):
    covered: list[int] = []
    for piece in geometry.pieces(size, offset, length):
        assert 0 <= piece.start < piece.stop <= geometry.shard_size(size, piece.index)
        base = piece.index * geometry.shard_bytes
        covered += range(base + piece.start, base + piece.stop)
    assert covered == list(range(offset, min(offset + length, size)))


@given(geometries, st.integers(0, 5000))
def test_shards_and_blocks_add_up_to_the_object(geometry, size):
    shards = [geometry.shard_size(size, i) for i in range(geometry.shard_count(size))]
    assert sum(shards) == size
    for shard in shards:
        blocks = [geometry.block_size(shard, i) for i in range(geometry.block_count(shard))]
        assert sum(blocks) == shard
        assert all(0 < block <= geometry.block_bytes for block in blocks)


@given(geometries, st.integers(0, 500), st.integers(0, 500))
def test_blocks_are_those_a_range_touches(geometry, start, length):
    touched = {i // geometry.block_bytes for i in range(start, start + length)}
    assert set(geometry.blocks(start, start + length)) == touched


def test_an_empty_object_has_one_empty_shard():
    geometry = Geometry()
    assert geometry.shard_count(0) == 1
    assert geometry.shard_size(0, 0) == 0
    assert geometry.block_count(0) == 0


@pytest.mark.parametrize(("shard", "block"), [(10, 3), (0, 1), (8, 0), (4, 8), (-8, 4)])
def test_sizes_that_do_not_divide_are_refused(shard, block):
    with pytest.raises(ValueError, match="multiple"):
        Geometry(shard_bytes=shard, block_bytes=block)


@given(st.integers(0, 1 << 70))
def test_runs_are_the_set_bits(bits):
    found = runs(bits)
    assert [i for run in found for i in run] == [i for i in range(71) if bits >> i & 1]
    assert all(one.stop < two.start for one, two in pairwise(found))


def test_golden_digests():
    """File names on every disk in use depend on these: bump the store's format version to change them."""
    assert shard_digest("s3://bucket/key", "etag", 0).hex() == "59922858c0fb013ea32d2d80765620be"
    assert shard_digest("s3://bucket/key", "etag", 1).hex() == "799b1fd68514eac0e4afdbe79d133f2f"
    assert shard_digest("file:///ä", "1-2-3", 0).hex() == "8b704586dfe383489e2c0059ad896184"
