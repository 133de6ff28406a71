import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.core.checksum import (
    S3_HEADERS,
    Algorithm,
    Checksum,
    checksum,
    combined,
    from_s3,
    running,
)

# The check values of the catalogues: CRC of b"123456789"; xxh3 from its reference implementation.
CHECK = {
    Algorithm.CRC32: 0xCBF43926,
    Algorithm.CRC32C: 0xE3069283,
    Algorithm.CRC64NVME: 0xAE8B14860A799888,
}


@pytest.mark.parametrize("algorithm", CHECK)
def test_known_values(algorithm):
    assert checksum(algorithm, b"123456789") == CHECK[algorithm]


def test_the_numbers_on_disk_stay():
    assert {a.name: a.value for a in Algorithm} == {
        "XXH3_64": 1,
        "CRC64NVME": 2,
        "CRC32C": 3,
        "CRC32": 4,
    }


@given(st.sampled_from(Algorithm), st.lists(st.binary(max_size=300), max_size=8))
def test_pieces_give_the_checksum_of_the_whole(algorithm, pieces):
    state = running(algorithm)
    for piece in pieces:
        state.update(memoryview(piece))
    assert state.value() == checksum(algorithm, b"".join(pieces))


@given(
    st.sampled_from([a for a in Algorithm if a.combines]),
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8),
)
def test_crcs_of_parts_combine_to_the_crc_of_the_whole(algorithm, parts):
    sums = [(checksum(algorithm, part), len(part)) for part in parts]
    assert combined(algorithm, sums) == checksum(algorithm, b"".join(parts))


def test_s3_form():
    raw = base64.b64encode(CHECK[Algorithm.CRC64NVME].to_bytes(8, "big")).decode()
    assert from_s3(Algorithm.CRC64NVME, raw) == Checksum(
        Algorithm.CRC64NVME, CHECK[Algorithm.CRC64NVME]
    )
    assert from_s3(Algorithm.CRC64NVME, f"{raw}-7") is None
    assert from_s3(Algorithm.CRC32, raw) is None
    assert from_s3(Algorithm.CRC32, "not base64!") is None
    assert next(iter(S3_HEADERS.values())) is Algorithm.CRC64NVME
