from hypothesis import given
from hypothesis import strategies as st

from cache_server.page.markup import Html, count, duration, element, money, percent, size


@given(st.text(), st.text())
def test_text_never_becomes_markup(inside, attribute):
    made = element("td", inside, class_=attribute)
    assert made.count("<") == 2
    assert made.count(">") == 2
    assert made.count('"') == 2


def test_elements():
    assert element("b", "x & y", Html("<br>"), None, 3) == "<b>x &amp; y<br>3</b>"
    assert (
        element("meta", http_equiv="refresh", content=5)
        == '<meta http-equiv="refresh" content="5">'
    )
    assert element("rect", class_="a", width=None) == '<rect class="a"/>'


def test_figures_for_people():
    assert [size(n) for n in (0, 1023, 1536, 300 << 20, 5 << 50)] == [
        *("0 B", "1023 B", "1.5 KiB", "300 MiB", "5.0 PiB"),
    ]
    assert [duration(s) for s in (0.0042, 0.42, 59, 3600, 90_000, 86_400 * 3)] == [
        *("4.2 ms", "420 ms", "59 s", "1 h 0 min", "25 h 0 min", "3 d 0 h"),
    ]
    assert [money(usd) for usd in (0, 0.0123, -3.5, 1234.5)] == [
        *("$0.00", "$0.0123", "-$3.50", "$1,234.50"),
    ]
    assert [percent(share) for share in (None, 0, 0.5, 1)] == ["–", "0%", "50.0%", "100%"]  # noqa: RUF001
    assert [count(n) for n in (7, 9999, 12_345, 2_500_000)] == ["7", "9999", "12.3 k", "2.5 M"]
