"""What the probe of FUSE and a kernel's release mean."""

import platform

import pytest

from hotshard.cli import machine
from hotshard.core.findings import Verdict


@pytest.mark.parametrize(
    ("release", "verdict"),
    [
        ("6.18.44-aws", Verdict.OK),
        ("6.9.0", Verdict.OK),
        ("6.1.132-147.221.amzn2023.x86_64", Verdict.WARN),
        ("5.3.0", Verdict.FAIL),
        ("odd", Verdict.FAIL),
    ],
)
def test_kernels(monkeypatch, release, verdict):
    monkeypatch.setattr(platform, "release", lambda: release)
    assert machine.kernel().verdict is verdict


def test_all_that_fuse_can_do():
    new = {"protocol": "7.45", "passthrough": True, "resend": True, "readdirplus": True}
    old = {"protocol": "7.38", "passthrough": False, "resend": False, "readdirplus": True}
    assert [f.verdict for f in machine.judged(new)] == [Verdict.OK] * 3
    assert [f.verdict for f in machine.judged(old)] == [Verdict.OK, Verdict.WARN, Verdict.WARN]
    assert all(f.remedy for f in machine.judged(old)[1:])
    assert [f.verdict for f in machine.judged({"error": "no"})] == [Verdict.FAIL]
    assert [f.verdict for f in machine.judged({"missing": "no"})] == [Verdict.WARN]
    assert [f.verdict for f in machine.judged({"skipped": "no"})] == [Verdict.SKIPPED]
