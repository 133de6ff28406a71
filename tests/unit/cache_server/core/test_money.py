"""Units to money."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.money import VERBS, Ledger, Prices, Usage

count = st.integers(0, 10**12)
usages = st.builds(
    Usage,
    requests=st.fixed_dictionaries(dict.fromkeys(VERBS, count)),
    origin_bytes=count,
    cross_zone_bytes=count,
)


def test_the_list_prices_of_s3():
    """An epoch of a million objects of 100 KiB, every one a GET."""
    epoch = Usage(requests={"GET": 1_000_000}, origin_bytes=100 << 30)
    assert epoch.usd(Prices()) == pytest.approx(0.40)
    assert Usage(requests={"LIST": 1000}).usd(Prices()) == pytest.approx(0.005)
    assert Usage(cross_zone_bytes=1e12).usd(Prices()) == pytest.approx(20.0)


def test_what_is_saved_is_the_difference():
    prices = Prices(get_usd_per_1000=1.0, origin_usd_per_gb=2.0)
    direct = Usage(requests={"GET": 3000}, origin_bytes=5e9)
    spent = Usage(requests={"GET": 1000, "HEAD": 10}, origin_bytes=1e9)
    ledger = Ledger(direct, spent, prices)
    assert ledger.direct_usd == pytest.approx(13.0)
    assert ledger.spent_usd == pytest.approx(3.0 + 10 * 0.0004 / 1000)
    assert ledger.saved_usd == pytest.approx(ledger.direct_usd - ledger.spent_usd)
    assert ledger.avoided("GET") == 2000
    assert ledger.avoided("HEAD") == -10
    assert ledger.avoided_bytes == 4e9


def test_a_cache_that_only_fills_has_cost_money():
    assert Ledger(Usage(), Usage(requests={"GET": 5})).saved_usd < 0


@given(usages, usages)
def test_money_is_linear_in_units(one, other):
    both = Usage(
        {verb: one.requests[verb] + other.requests[verb] for verb in VERBS},
        one.origin_bytes + other.origin_bytes,
        one.cross_zone_bytes + other.cross_zone_bytes,
    )
    prices = Prices(origin_usd_per_gb=0.045)
    assert both.usd(prices) == pytest.approx(one.usd(prices) + other.usd(prices))
