import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.stats import Better, Verdict, noise, paired, ratio, summary, verdict

positive = st.floats(1e-3, 1e6)


def test_summary_is_median_and_range():
    taken = summary([3.0, 1.0, 2.0])
    assert (taken.median, taken.low, taken.high, taken.spread) == (2.0, 1.0, 3.0, 1.0)


def test_summary_of_zeros_has_no_spread():
    assert summary([0.0, 0.0]).spread == 0.0


@given(positive, positive)
def test_a_ratio_under_one_is_worse_whichever_way_the_unit_goes(ours, limit):
    assert (ratio(ours, limit, Better.HIGHER) < 1) == (ours < limit)
    assert (ratio(ours, limit, Better.LOWER) < 1) == (ours > limit)


@given(st.lists(positive, min_size=3, max_size=9), st.floats(0.1, 2.0))
def test_paired_ratios_do_not_see_a_machine_that_slows_down_between_rounds(limits, true_ratio):
    ours = [limit * true_ratio for limit in limits]
    taken = paired(ours, limits, Better.HIGHER)
    assert taken.median == pytest.approx(true_ratio)
    assert taken.spread == pytest.approx(0.0, abs=1e-9)


def test_paired_wants_as_many_of_both():
    with pytest.raises(ValueError, match="argument"):
        paired([1.0, 2.0], [1.0], Better.HIGHER)


@pytest.mark.parametrize(
    ("before", "after", "margin", "expected"),
    [
        (1.0, 0.97, 0.0, Verdict.SAME),  # below the floor of noise
        (1.0, 0.90, 0.0, Verdict.WORSE),
        (1.0, 0.90, 0.2, Verdict.SAME),
        (1.0, 1.10, 0.0, Verdict.BETTER),
        (0.5, 0.30, 0.2, Verdict.WORSE),
    ],
)
def test_verdict(before, after, margin, expected):
    assert verdict(before, after, margin) is expected


def test_noise_is_half_of_each_range():
    assert noise(0.2, 0.4) == pytest.approx(0.3)
