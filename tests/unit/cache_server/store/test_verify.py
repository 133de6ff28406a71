"""Checking files against block checksums."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.store.verify import BUFFER_BYTES, Sums, agrees, holds, new_buffer
from hotshard.core.checksum import Algorithm, Checksum, checksum

BUFFER = new_buffer()


def file_of(content: bytes) -> int:
    fd = os.memfd_create("content")
    os.pwrite(fd, content, 0)
    return fd


def sums_of(content: bytes, block_bytes: int, algorithm: Algorithm) -> Sums:
    blocks = (content[at : at + block_bytes] for at in range(0, len(content), block_bytes))
    return Sums(algorithm, block_bytes, [checksum(algorithm, block) for block in blocks])


@given(
    size=st.integers(0, 20_000),
    block_bytes=st.integers(1, 6_000),
    algorithm=st.sampled_from(Algorithm),
    at=st.integers(0, 20_000),
)
def test_one_wrong_bit_is_found(size, block_bytes, algorithm, at):
    content = bytearray(os.urandom(size))
    sums = sums_of(bytes(content), block_bytes, algorithm)
    fd = file_of(bytes(content))
    try:
        assert holds(fd, size, sums, BUFFER)
        assert not holds(fd, size + 1, sums, BUFFER)
        if size:
            content[at % size] ^= 1 << at % 8
            os.pwrite(fd, content, 0)
            assert not holds(fd, size, sums, BUFFER)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [BUFFER_BYTES - 1, BUFFER_BYTES + 1, 3 * BUFFER_BYTES + 17])
def test_blocks_larger_than_the_buffer(size):
    content = os.urandom(size)
    fd = file_of(content)
    sums = sums_of(content, 2 * BUFFER_BYTES, Algorithm.XXH3_64)
    assert holds(fd, size, sums, BUFFER)
    os.pwrite(fd, b"#", size - 1) if content[-1:] != b"#" else os.pwrite(fd, b"!", size - 1)
    assert not holds(fd, size, sums, BUFFER)
    os.close(fd)


def test_a_missing_sum_is_found():
    fd = file_of(b"x" * 20)
    sums = sums_of(b"x" * 20, 10, Algorithm.XXH3_64)
    assert not holds(fd, 20, Sums(sums.algorithm, 10, sums.values[:1]), BUFFER)
    os.close(fd)


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a.combines])
def test_blocks_amount_to_the_whole(algorithm):
    content = os.urandom(1001)
    whole = Checksum(algorithm, checksum(algorithm, content))
    sums = sums_of(content, 100, algorithm)
    assert agrees(sums, 1001, whole)
    assert not agrees(sums, 1001, Checksum(algorithm, whole.value ^ 1))
