from hypothesis import given
from hypothesis import strategies as st

from hotshard.core.backoff import Backoff, RetryBudget


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True), st.floats(0, 30))
def test_a_delay_is_within_its_window_or_what_was_asked_for(failures, random_unit, retry_after_s):
    backoff = Backoff(attempts=8, initial_s=0.1, cap_s=5.0)
    delay_s = backoff.delay_s(failures, random_unit, retry_after_s)
    if failures >= 8:
        assert delay_s is None
    else:
        assert delay_s is not None
        assert retry_after_s <= delay_s <= max(retry_after_s, min(5.0, 0.1 * 2 ** (failures - 1)))


def test_windows_double_up_to_the_cap():
    backoff = Backoff(attempts=10, initial_s=1.0, cap_s=5.0)
    almost_one = 1 - 1e-9
    delays = [round(backoff.delay_s(n, almost_one) or 0) for n in range(1, 6)]
    assert delays == [1, 2, 4, 5, 5]


def test_the_budget_stops_a_retry_storm_and_recovers_with_successes():
    budget = RetryBudget(tokens_max=10, ratio=1.0)
    spent = sum(budget.try_spend() for _ in range(100))
    assert spent == 5
    for _ in range(5):
        budget.succeeded()
    assert not budget.try_spend()
    for _ in range(10):
        budget.succeeded()
    assert budget.try_spend()
