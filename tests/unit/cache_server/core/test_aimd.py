from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.aimd import HOLD_S, Aimd


def test_a_crowd_of_refusals_halves_once():
    aimd = Aimd(32)
    for _ in range(20):
        aimd.slowed_down(5.0)
    assert aimd.limit == 16
    aimd.slowed_down(5.0 + HOLD_S)
    assert aimd.limit == 8


def test_a_round_of_answers_gives_one_more():
    aimd = Aimd(32)
    for second in range(5):
        aimd.slowed_down(float(second * 2))
    assert aimd.limit == 1
    before = aimd.limit
    for _ in range(10):
        for _ in range(before + 1):
            aimd.succeeded()
        assert before < aimd.limit <= before + 2
        before = aimd.limit
    for _ in range(10_000):
        aimd.succeeded()
    assert aimd.limit == 32


@given(st.lists(st.booleans(), max_size=300), st.integers(1, 100))
def test_the_limit_stays_within_its_bounds(events, most):
    aimd = Aimd(most)
    for at, good in enumerate(events):
        aimd.succeeded() if good else aimd.slowed_down(at / 3)
        assert 1 <= aimd.limit <= most
