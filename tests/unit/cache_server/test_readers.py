from cache_server.readers import WINDOW_BLOCKS_MAX, Readers
from hotshard.core.objects import ObjectInfo

BIG = ObjectInfo("s3://b/big", "v", 100, 0)
SMALL = ObjectInfo("s3://b/small", "v", 9, 0)


def test_the_window_grows_with_a_stream_up_to_its_limit_and_the_object():
    readers = Readers(10)
    position, windows = 0, []
    while position < 100:
        ahead = readers.ahead(BIG, position, position + 10)
        windows.append(ahead - position - 10)
        position += 10
    assert windows[:3] == [10, 20, 40]
    assert max(windows) <= 10 * WINDOW_BLOCKS_MAX
    assert windows[-1] == 0


def test_objects_of_one_block_have_nothing_ahead():
    assert Readers(10).ahead(SMALL, 0, 9) == 9
