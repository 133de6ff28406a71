"""Totals of several nodes become intervals of the cluster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.core.trend import Totals, intervals, over, summed


def test_nodes_are_summed_up_although_they_sample_at_other_times():
    one = [Totals(0, asked_bytes=0), Totals(30, asked_bytes=300), Totals(60, asked_bytes=600)]
    two = [Totals(15, asked_bytes=1000), Totals(45, asked_bytes=1030), Totals(60, asked_bytes=1045)]
    found = summed([intervals(each, 60, length_s=30, count=2) for each in (one, two)])
    assert [each.asked_bytes for each in found] == [pytest.approx(315), pytest.approx(330)]


def test_what_a_node_did_before_it_was_watched_is_not_counted():
    (found,) = intervals([Totals(50, asked_bytes=10**9)], 60, length_s=60, count=1)
    assert found.asked_bytes == 0
    assert found.hit_ratio is None


@given(
    st.lists(st.tuples(st.integers(0, 3600), st.integers(0, 10**9)), min_size=1, max_size=50),
    st.integers(1, 60),
)
def test_nothing_is_lost_and_nothing_is_counted_twice(steps, count):
    times = sorted({at for at, _ in steps})
    total, history = 0, []
    for at, (_, more) in zip(times, steps, strict=False):
        total += more
        history.append(Totals(float(at), hit_bytes=total, asked_bytes=total))
    found = intervals(history, 3600.0, length_s=3600 / count, count=count)
    assert over(found).asked_bytes == pytest.approx(
        history[-1].asked_bytes - history[0].asked_bytes
    )
    assert all(each.hit_ratio in (None, 1.0) for each in found)
