from cache_server.core.hedge import DELAY_S_MIN, KEPT, LEAST, SHARE, TOKENS_MAX, Hedge


def test_the_usual_time_has_to_be_known_first():
    hedge = Hedge()
    for _ in range(LEAST - 1):
        hedge.answered(1.0)
    assert hedge.delay_s() is None
    hedge.answered(1.0)
    assert hedge.delay_s() == 1.0


def test_one_in_a_hundred_is_unusual():
    hedge = Hedge()
    for i in range(KEPT):
        hedge.answered(0.1 if i % 50 else 5.0)
    assert hedge.delay_s() == 5.0
    for _ in range(KEPT):
        hedge.answered(0.0001)
    assert hedge.delay_s() == DELAY_S_MIN


def test_hedges_are_at_most_their_share_of_the_requests():
    hedge, hedged = Hedge(), 0
    for _ in range(10_000):
        hedge.asked()
        hedged += hedge.try_spend()
    assert hedged <= 10_000 * SHARE + TOKENS_MAX
    for _ in range(1_000):
        hedge.asked()
    burst = 0
    while hedge.try_spend():
        burst += 1
    assert burst <= TOKENS_MAX
