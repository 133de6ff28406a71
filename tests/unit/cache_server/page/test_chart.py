from cache_server.core.trend import Interval
from cache_server.page.chart import HEIGHT, bar, columns, ratio_line


def test_a_gap_lifts_the_pen():
    busy = Interval(0, 60, hit_bytes=10, asked_bytes=10)
    idle = Interval(0, 60)
    path = ratio_line([busy, busy, idle, busy])
    assert path.count("M0.0 ") == 1
    assert "L600.0 " in path
    assert path.count("M") == 3  # the grid, and a line on each side of the gap


def test_columns_fill_the_height():
    found, top = columns([Interval(0, 10, hit_bytes=60, peer_bytes=30, origin_bytes=10)])
    assert top == 10.0
    for height in (60, 30, 10):
        assert f'height="{height * HEIGHT / 100:.2f}"' in found


def test_nothing_happened():
    assert columns([Interval(0, 60)])[1] == 0
    assert "NaN" not in ratio_line([])


def test_a_bar_stays_in_its_track():
    assert 'width="100.0"' in bar(1.7)
    assert 'width="0.0"' in bar(-1)
