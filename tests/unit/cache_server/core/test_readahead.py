from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.readahead import Streams, worth_finishing

BLOCK = 8


def test_a_reader_from_the_start_gets_a_growing_window():
    streams = Streams(BLOCK, window_max=64)
    position, windows = 0, []
    for _ in range(5):
        reach = streams.ask(position, position + BLOCK)
        windows.append(reach - position - BLOCK)
        position = reach  # a client asks again past what it was given
    assert windows == [8, 16, 32, 64, 64]


def test_random_reads_are_not_read_ahead_of():
    streams = Streams(BLOCK, window_max=64)
    for start in (1000, 5000, 300, 9000, 2000):
        assert streams.ask(start, start + BLOCK) == start + BLOCK


def test_a_random_place_that_goes_on_becomes_a_stream():
    streams = Streams(BLOCK, window_max=64)
    assert streams.ask(1000, 1008) == 1008
    assert streams.ask(1008, 1016) == 1016 + BLOCK


def test_several_readers_of_one_object_keep_their_windows():
    streams = Streams(BLOCK, window_max=64)
    places = [0, 10_000, 20_000, 30_000]
    for _ in range(4):
        places = [streams.ask(p, p + BLOCK) for p in places]
    assert all(streams.ask(p, p + BLOCK) - p - BLOCK >= 32 for p in places)


def test_starting_over_is_a_new_stream():
    streams = Streams(BLOCK, window_max=64)
    streams.ask(0, 8)
    streams.ask(8, 16)
    assert streams.ask(0, 8) == 8 + BLOCK


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 200)), max_size=200))
def test_windows_and_memory_are_bounded(asks):
    streams = Streams(BLOCK, window_max=64, streams_max=4)
    for start, length in asks:
        reach = streams.ask(start, start + length)
        assert start + length <= reach <= start + length + 64
        assert len(streams._streams) <= 4


def test_a_shard_is_finished_from_half_on():
    assert not worth_finishing(15, 32)
    assert worth_finishing(16, 32)
