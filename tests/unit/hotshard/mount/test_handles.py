import pytest

from hotshard.mount.abi import UNIQUE_RESEND
from hotshard.mount.handles import HEAD_BYTES, RECORD_BYTES, HandleTable, Mode, TooManyOpen


def space(capacity: int) -> bytearray:
    return bytearray(HEAD_BYTES + RECORD_BYTES * capacity)


def test_open_and_close():
    table = HandleTable(space(4), 0, 4)
    handle = table.open(10, 7, Mode.CACHED)
    assert table.get(10) == handle
    assert table.mode_of(7) == (Mode.CACHED, 0)
    assert table.close(10) == handle
    assert table.close(10) is None
    assert table.mode_of(7) is None
    assert len(table) == 0


def test_an_open_that_is_sent_again_is_the_same_handle():
    table = HandleTable(space(4), 0, 4)
    first = table.open(10, 7, Mode.PASSTHROUGH, 3)
    assert table.open(10 | UNIQUE_RESEND, 7, Mode.PASSTHROUGH, 4) == first
    assert len(table) == 1


def test_the_mode_holds_until_the_last_handle_is_closed():
    table = HandleTable(space(4), 0, 4)
    table.open(10, 7, Mode.PASSTHROUGH, 3)
    table.open(12, 7, Mode.PASSTHROUGH, 3)
    table.close(10)
    assert table.mode_of(7) == (Mode.PASSTHROUGH, 3)
    table.close(12)
    assert table.mode_of(7) is None


def test_directories_have_no_mode():
    table = HandleTable(space(4), 0, 4)
    table.open(10, 1, Mode.DIRECTORY)
    assert table.mode_of(1) is None
    closed = table.close(10)
    assert closed is not None
    assert closed.mode is Mode.DIRECTORY


def test_full_and_free_again():
    table = HandleTable(space(2), 0, 2)
    table.open(2, 1, Mode.CACHED)
    table.open(4, 1, Mode.CACHED)
    with pytest.raises(TooManyOpen):
        table.open(6, 1, Mode.CACHED)
    table.close(2)
    table.open(6, 1, Mode.CACHED)
    assert {h.fh for h in table} == {4, 6}


def test_another_process_finds_them():
    buffer = space(8)
    table = HandleTable(buffer, 0, 8)
    table.open(2, 7, Mode.PASSTHROUGH, 5)
    table.open(4, 7, Mode.PASSTHROUGH, 5)
    table.open(6, 9, Mode.DIRECTORY)
    table.close(2)
    again = HandleTable(buffer, 0, 8)
    assert {h.fh for h in again} == {4, 6}
    assert again.mode_of(7) == (Mode.PASSTHROUGH, 5)
    again.open(8, 7, Mode.PASSTHROUGH, 5)
    again.close(4)
    assert again.mode_of(7) == (Mode.PASSTHROUGH, 5)
    again.close(8)
    assert again.mode_of(7) is None


def test_a_backing_id_is_kept_for_a_file_nobody_has_open():
    buffer = space(4)
    table = HandleTable(buffer, 0, 4)
    table.keep(7, 3)
    table.open(10, 7, Mode.PASSTHROUGH, 3)
    table.close(10)
    assert table.mode_of(7) == (Mode.PASSTHROUGH, 3)
    assert len(table) == 0
    again = HandleTable(buffer, 0, 4)  # another process
    assert again.kept() == [7]
    again.open(12, 7, Mode.PASSTHROUGH, 3)
    kept = again.let_go(7)
    assert kept is not None
    assert kept.backing_id == 3
    assert again.let_go(7) is None
    assert again.mode_of(7) == (Mode.PASSTHROUGH, 3)  # it is open
    again.close(12)
    assert again.mode_of(7) is None
