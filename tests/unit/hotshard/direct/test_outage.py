"""When calls go to the origin, and when back."""

from hypothesis import given
from hypothesis import strategies as st

from hotshard.direct.outage import PROBE_PERIOD_S, Outage


def test_a_server_is_waited_for_and_then_not():
    outage = Outage(after_s=5.0)
    assert not outage.lost(100.0)
    assert not outage.lost(104.9)
    assert outage.lost(105.0)
    assert outage.direct
    assert not outage.lost(106.0), "it begins once"


def test_an_answer_between_two_losses_begins_the_wait_anew():
    outage = Outage(after_s=5.0)
    outage.lost(100.0)
    assert not outage.answered()
    assert not outage.lost(104.0)
    assert not outage.lost(108.0)
    assert outage.lost(109.0)


def test_one_caller_of_a_period_looks_for_the_server():
    outage = Outage(after_s=0.0)
    assert not outage.probe_due(0.0), "there is no outage"
    outage.lost(10.0)
    assert not outage.probe_due(10.0 + PROBE_PERIOD_S / 2)
    assert outage.probe_due(10.0 + PROBE_PERIOD_S)
    assert not outage.probe_due(10.0 + PROBE_PERIOD_S)
    assert outage.probe_due(10.0 + 2 * PROBE_PERIOD_S)
    assert outage.answered()
    assert not outage.probe_due(1000.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 10)), max_size=50))
def test_direct_means_nobody_answered_for_the_whole_wait(events):
    outage, now, since = Outage(after_s=5.0), 0.0, None
    for answered, passed in events:
        now += passed
        if answered:
            outage.answered()
            since = None
        else:
            outage.lost(now)
            since = now if since is None else since
        assert outage.direct == (since is not None and now - since >= 5.0)
