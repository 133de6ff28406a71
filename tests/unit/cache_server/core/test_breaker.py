from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.breaker import FAILURES, REST_S, Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        assert breaker.allows(0.0)
        breaker.failed(0.0)
    return breaker


def test_failures_in_a_row_open_it_and_one_request_tries():
    breaker = opened()
    assert breaker.state == "open"
    assert not breaker.allows(REST_S / 2)
    assert breaker.allows(REST_S)
    assert not breaker.allows(REST_S)  # one is enough
    breaker.succeeded(REST_S)
    assert breaker.state == "closed"
    assert breaker.allows(REST_S)


def test_a_failure_that_says_more_counts_more():
    breaker = Breaker()
    breaker.failed(0.0, FAILURES - 1)
    assert breaker.state == "closed"
    breaker.failed(0.0, 1)
    assert breaker.state == "open"


def test_a_failed_try_rests_twice_as_long():
    breaker = opened()
    assert breaker.allows(REST_S)
    breaker.failed(REST_S)
    assert not breaker.allows(2.9 * REST_S)
    assert breaker.allows(3 * REST_S)


def test_a_try_that_was_given_up_lets_another_one_through():
    breaker = opened()
    assert breaker.allows(REST_S)
    breaker.cancelled(REST_S)
    assert breaker.allows(REST_S)


def test_an_answer_in_between_forgives():
    breaker = Breaker()
    for _ in range(10):
        for _ in range(FAILURES - 1):
            breaker.failed(0.0)
        breaker.succeeded(0.0)
    assert breaker.state == "closed"


@given(st.lists(st.sampled_from(["allow", "ok", "fail", "cancel", "wait"]), max_size=200))
def test_it_never_stays_open_for_ever(events):
    breaker, now = Breaker(), 0.0
    for event in events:
        if event == "wait":
            now += 1.0
        elif breaker.allows(now):
            match event:
                case "ok":
                    breaker.succeeded(now)
                case "fail":
                    breaker.failed(now)
                case _:
                    breaker.cancelled(now)
    assert breaker.allows(now + 60.0)
