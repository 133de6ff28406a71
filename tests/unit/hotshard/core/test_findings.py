import json

from hotshard.core.findings import Finding, Verdict, fail, ok, skipped, warn, worst


def test_the_worst_counts_and_what_was_skipped_does_not():
    good, odd, bad, none = ok("a", "x"), warn("b", "x", "y"), fail("c", "x", "y"), skipped("d", "x")
    assert worst([]) is Verdict.OK
    assert worst([good, none]) is Verdict.OK
    assert worst([good, odd]) is Verdict.WARN
    assert worst([bad, odd, none]) is Verdict.FAIL


def test_they_travel_as_json():
    finding = fail("check", "fact", "remedy")
    assert Finding.of(json.loads(json.dumps(finding.document()))) == finding
