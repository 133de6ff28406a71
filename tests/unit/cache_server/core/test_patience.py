from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.patience import KEPT, LEAST, MARGIN, MOST, UNKNOWN, Patience


def after(*shares):
    patience = Patience()
    for share in shares:
        patience.took(share)
    return patience.factor


def test_nothing_is_known_at_first():
    assert after() == after(*[0.1] * (LEAST - 1)) == UNKNOWN


def test_quick_members_are_not_waited_for_longer_than_usual():
    assert after(*[0.01] * LEAST) == 1.0


def test_the_limit_follows_what_attempts_take():
    assert after(*[0.5] * LEAST) == 0.5 * MARGIN
    assert after(*[100.0] * LEAST) == MOST


def test_one_slow_member_of_sixteen_changes_nothing():
    assert after(*[0.01] * 15, 3.0, *[0.01] * 15, 3.0) == 1.0


def test_what_was_long_ago_is_forgotten():
    assert after(*[2.0] * KEPT, *[0.01] * KEPT) == 1.0


@given(st.lists(st.floats(0, 1e6)))
def test_it_stays_within_its_limits(shares):
    assert 1.0 <= after(*shares) <= MOST
