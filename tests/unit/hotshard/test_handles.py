"""Handles against a model that knows the place of every byte; the table's limits and leases."""

from hypothesis import given
from hypothesis import strategies as st

from hotshard.calls import Opened, Piece
from hotshard.core.objects import ObjectInfo
from hotshard.handles import PARTIAL_PIECES_MAX, SEALED_PIECES_MAX, Handle, HandleTable
from hotshard.openfile import OpenFile

SIZE = 40


class NoFile(OpenFile):
    """An OpenFile that owns nothing."""

    def __init__(self) -> None:
        super().__init__(-1)

    def __del__(self) -> None:
        return


def info(uri: str = "s3://bucket/a", version: str = "v1", size: int = SIZE) -> ObjectInfo:
    return ObjectInfo(uri, version, size, 1)


def piece(start: int, stop: int, *, sealed: bool = False, delta: int = 0) -> Piece:
    return Piece(start, stop, NoFile(), delta, sealed=sealed)


def whole(uri: str = "s3://bucket/a", version: str = "v1", lease_s: float = 10.0) -> Opened:
    return Opened(info(uri, version), [piece(0, SIZE, sealed=True)], lease_s)


@given(
    st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE), st.booleans()), max_size=12)
)
def test_the_newest_piece_of_a_byte_counts(ranges: list[tuple[int, int, bool]]):
    handle = Handle(info())
    model: dict[int, OpenFile] = {}
    for start, length, sealed in ranges:
        new = piece(start, min(SIZE, start + length), sealed=sealed)
        if handle.file is None:
            model.update(dict.fromkeys(range(new.start, new.stop), new.file))
        handle.learn([new])
        partial = sum(not p.sealed for p in handle.pieces)
        assert partial <= PARTIAL_PIECES_MAX
        edges = [edge for p in handle.pieces for edge in (p.start, p.stop)]
        assert edges == sorted(edges), "in order, not overlapping"
        for at in range(SIZE):
            found = handle.find(at)
            if found is not None:  # it may have been dropped, never be wrong
                assert found.file is model[at]
        assert handle.find(new.start) is not None, "what was just learnt is there"


def test_few_pieces_are_all_kept():
    handle = Handle(info())
    handle.learn([piece(10, 20), piece(20, 30)])
    handle.learn([piece(15, 25, delta=7)])
    assert [(p.start, p.stop, p.delta) for p in handle.pieces] == [
        (10, 15, 0),
        (15, 25, 7),
        (25, 30, 0),
    ]
    assert handle.find(9) is None
    assert handle.find(30) is None


def test_sealed_pieces_are_bounded_and_the_far_ones_go():
    handle = Handle(info(size=1000))
    for start in range(SEALED_PIECES_MAX + 10):
        handle.learn([piece(start, start + 1, sealed=True)])
    assert len(handle.pieces) == SEALED_PIECES_MAX
    assert handle.find(0) is None
    assert handle.find(SEALED_PIECES_MAX + 9) is not None


def test_a_whole_file_is_set_once():
    handle = Handle(info())
    first = piece(0, SIZE, sealed=True, delta=5)
    handle.learn([first])
    handle.learn([piece(0, SIZE, sealed=True)])
    assert handle.file is first.file
    assert handle.delta == 5


def test_straight_means_the_file_is_the_object():
    for delta, file_bytes, straight in ((0, SIZE, True), (5, SIZE + 5, False), (0, 99, False)):
        handle = Handle(info())
        handle.learn([piece(0, SIZE, sealed=True, delta=delta)])
        handle.renew(0.0, 10.0)
        assert handle.file is not None
        handle.measured(handle.file, file_bytes)
        assert handle.straight is straight
        assert (handle.straight_until > 0) is straight


def test_a_lease_ends():
    table = HandleTable(10)
    handle = table.opened("s3://bucket/a", whole(lease_s=10.0), 100.0)
    assert table.leased("s3://bucket/a", 109.9) is handle
    assert table.leased("s3://bucket/a", 110.0) is None
    assert handle.quick_until <= 110.0


def test_no_lease_no_reuse():
    table = HandleTable(10)
    table.opened("s3://bucket/a", whole(lease_s=0.0), 100.0)
    assert table.leased("s3://bucket/a", 100.0) is None
    assert not table.handles


def test_the_same_version_keeps_its_file_and_another_does_not():
    table = HandleTable(10)
    handle = table.opened("s3://bucket/a", whole(), 0.0)
    file = handle.file
    assert table.opened("s3://bucket/a", whole(), 20.0) is handle
    assert handle.file is file
    assert handle.lease_until == 30.0
    other = table.opened("s3://bucket/a", whole(version="v2"), 40.0)
    assert other is not handle
    assert table.leased("s3://bucket/a", 41.0) is other


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200))
def test_the_table_is_bounded_and_drops_the_oldest(uses: list[tuple[int, bool]]):
    table = HandleTable(8)
    now = 0.0
    order: list[str] = []
    for number, fresh in uses:
        now += 2.0  # past the touch period, so that every use counts
        uri = f"s3://bucket/{number}"
        if fresh or table.leased(uri, now) is None:
            table.opened(uri, whole(uri, lease_s=1e9), now)
        order = [seen for seen in order if seen != uri] + [uri]
        order = order[-8:]
        assert list(table.handles) == order


def test_many_pieces_weigh_more_than_one():
    table = HandleTable(20)
    for number in range(10):
        uri = f"s3://bucket/{number}"
        pieces = [piece(at, at + 1, sealed=True) for at in range(10)]
        table.opened(uri, Opened(info(uri), pieces, 10.0), 0.0)
    assert list(table.handles) == ["s3://bucket/8", "s3://bucket/9"]


def test_empty_objects_are_counted_too():
    table = HandleTable(5)
    for number in range(20):
        uri = f"s3://bucket/{number}"
        table.opened(uri, Opened(info(uri, size=0), [], 10.0), 0.0)
    assert len(table.handles) == 5


def test_a_lost_count_is_found_again():
    table = HandleTable(10)
    table._files = 1000  # as if threads had lost updates
    for number in range(100):
        uri = f"s3://bucket/{number}"
        table.opened(uri, whole(uri), 0.0)
    assert len(table.handles) == 10


def test_reuse_is_told_in_batches_not_each_time():
    table = HandleTable(10)
    for name in "ab":
        table.opened(f"s3://bucket/{name}", whole(f"s3://bucket/{name}", lease_s=100.0), 0.0)
    assert table.to_tell(0.5) == []
    for now in (0.1, 0.9):
        table.leased("s3://bucket/a", now)
    assert table.to_tell(0.9) == [], "the open itself was noted"
    for now in (1.0, 1.1, 1.2):
        table.leased("s3://bucket/a", now)
        table.leased("s3://bucket/b", now)
    assert table.to_tell(1.3) == ["s3://bucket/a", "s3://bucket/b"]
    table.leased("s3://bucket/a", 2.1)
    assert table.to_tell(2.2) == [], "at most once a second"
    assert table.to_tell(2.4) == ["s3://bucket/a"]
