import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.data import PAGE, DataSet
from benchmarks.results import WrongBytes

DATA = DataSet(seed=7, count=3, object_bytes=5 * PAGE + 100)


@given(st.integers(0, 2), st.integers(0, 6 * PAGE), st.integers(0, 6 * PAGE))
def test_any_range_equals_the_slice_of_the_whole(index, offset, length):
    whole = DATA.content(index, 0, DATA.object_bytes)
    assert DATA.content(index, offset, length) == whole[offset : offset + length]


def test_objects_pages_and_seeds_differ():
    first = DATA.content(0, 0, 2 * PAGE)
    assert first[:PAGE] != first[PAGE:]
    assert first != DATA.content(1, 0, 2 * PAGE)
    assert first != DataSet(8, 3, DATA.object_bytes).content(0, 0, 2 * PAGE)


def test_written_files_hold_the_content(tmp_path):
    DATA.write(str(tmp_path))
    for index in range(DATA.count):
        body = (tmp_path / DATA.name(index)).read_bytes()
        DATA.check(index, 0, DATA.object_bytes, body)


@pytest.mark.parametrize("bad", [b"", b"short"])
def test_check_refuses_short_answers(bad):
    with pytest.raises(WrongBytes):
        DATA.check(0, 0, PAGE, bad)


@given(st.integers(0, 2 * PAGE - 1))
def test_check_finds_one_flipped_byte(at):
    body = bytearray(DATA.content(0, PAGE, 2 * PAGE))
    body[at] ^= 1
    with pytest.raises(WrongBytes):
        DATA.check(0, PAGE, 2 * PAGE, body)


def test_check_finds_the_right_bytes_of_the_wrong_place():
    with pytest.raises(WrongBytes):
        DATA.check(0, PAGE, PAGE, DATA.content(0, 0, PAGE))
    with pytest.raises(WrongBytes):
        DATA.check(0, 0, PAGE, DATA.content(1, 0, PAGE))
