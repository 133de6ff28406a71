"""What a Date header says about our clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.doctor.origins import SKEW_FAIL_S, SKEW_WARN_S, skew
from hotshard.core.findings import Verdict


@given(st.floats(0, 1e9), st.floats(0, 0.999), st.floats(0, 4))
def test_a_right_clock_is_never_called_wrong(now_s, fraction, took_s):
    theirs = float(int(now_s))  # a Date has whole seconds
    before = theirs + fraction - took_s / 2
    assert skew("clock", theirs, before, before + took_s).fact == "0 s off"


@pytest.mark.parametrize(
    ("off_s", "verdict", "word"),
    [
        (SKEW_WARN_S + 2, Verdict.WARN, "ahead"),
        (-SKEW_WARN_S - 2, Verdict.WARN, "behind"),
        (SKEW_FAIL_S + 2, Verdict.FAIL, "ahead"),
        (-SKEW_FAIL_S - 2, Verdict.FAIL, "behind"),
    ],
)
def test_a_wrong_clock(off_s, verdict, word):
    found = skew("clock", 1000.0, 1000.0 + off_s, 1000.1 + off_s)
    assert found.verdict is verdict
    assert found.fact.endswith(word)
