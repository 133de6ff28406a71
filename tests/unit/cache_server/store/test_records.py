"""The records of one disk."""

import errno

import pytest

from cache_server.store.records import LOAD_ROWS, Records
from cache_server.store.verify import Sums
from hotshard.core.checksum import Algorithm
from support.stores import make_key

SUMS = Sums(Algorithm.CRC64NVME, 1 << 20, [0, 1, 2**64 - 1])


@pytest.fixture
def records(tmp_path):
    records = Records(str(tmp_path / "index.db"))
    yield records
    records.close()


def insert(records, *uris):
    with records.transaction():
        return [records.insert(make_key(uri, 7), SUMS, 1) for uri in uris]


def test_what_goes_in_comes_out(records):
    (row,) = insert(records, "s3://b/k")
    assert records.sums(row) == SUMS
    assert records.sums(row + 1) is None
    (loaded,) = records.load(0)
    assert (loaded.row, loaded.size, loaded.uri, loaded.generation) == (row, 7, "s3://b/k", 1)
    assert loaded.digest == make_key("s3://b/k", 7).digest
    assert records.newest("s3://b/k").version == "v1"


def test_row_numbers_are_never_used_again(records):
    rows = insert(records, "s3://b/1", "s3://b/2")
    with records.transaction():
        records.delete(rows)
    assert insert(records, "s3://b/3") == [3]


def test_a_failed_transaction_leaves_nothing(records):
    with pytest.raises(KeyError), records.transaction():
        records.insert(make_key("s3://b/k", 7), SUMS, 1)
        raise KeyError
    assert records.load(0) == []
    insert(records, "s3://b/k")


def test_names_below_a_prefix_compare_byte_by_byte(records):
    uris = [
        "s3://b/a",
        "s3://b/a/",
        "s3://b/a/b",
        "s3://b/a0",
        "s3://b/a/ü\U0001f600",
        "s3://b/A/x",
    ]
    insert(records, *uris)
    under = {uri for _, uri in records.under("s3://b/a/")}
    assert under == {"s3://b/a/", "s3://b/a/b", "s3://b/a/ü\U0001f600"}
    assert [uri for _, uri in records.under("s3://b/a")] == ["s3://b/a"]
    assert len(records.under("s3://b/")) == len(uris)


def test_many_records_load_in_order(records):
    insert(records, *(f"s3://b/{n}" for n in range(LOAD_ROWS + 5)))
    assert len(records.load(0)) == LOAD_ROWS
    assert [row.row for row in records.load_all()] == list(range(1, LOAD_ROWS + 6))
    assert records.next_after(LOAD_ROWS + 4)[0] == LOAD_ROWS + 5
    assert records.next_after(LOAD_ROWS + 5) is None


def test_what_is_kept_survives(tmp_path):
    path = str(tmp_path / "index.db")
    records = Records(path)
    with records.transaction():
        records.set_pins(["s3://b/", "s3://a/"])
        records.set_fact("generation", "3")
        records.set_fact("generation", "4")
    records.close()
    records = Records(path)
    assert (records.pins(), records.fact("generation")) == (["s3://a/", "s3://b/"], "4")
    assert records.fact("none") is None
    records.close()


def test_a_damaged_file_is_an_os_error(tmp_path):
    (tmp_path / "index.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(OSError, match=r"index\.db") as caught:
        Records(str(tmp_path / "index.db"))
    assert caught.value.errno == errno.EIO
