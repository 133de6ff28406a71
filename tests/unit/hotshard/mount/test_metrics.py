"""The metrics of a mount, as Prometheus reads them."""

import re

from hotshard.mount.metrics import ABOUT, Tally, kind_of, render


def test_tallies_of_all_threads_are_added_up():
    one, two = Tally(), Tally()
    one.request(15, 0.00002)
    two.request(15, 0.5)
    two.request(14, 100.0)
    one.add(("hotshard_mount_opens_total", "mode", "cached"))
    two.add(("hotshard_mount_opens_total", "mode", "cached"), 2)
    text = render([one, two], {("hotshard_mount_in_flight",): 3})
    assert 'hotshard_mount_opens_total{mode="cached"} 3' in text
    assert 'hotshard_mount_requests_total{opcode="read"} 2' in text
    assert 'hotshard_mount_request_duration_seconds_bucket{opcode="read",le="5e-05"} 1' in text
    assert 'hotshard_mount_request_duration_seconds_bucket{opcode="read",le="+Inf"} 2' in text
    assert 'hotshard_mount_request_duration_seconds_bucket{opcode="open",le="10.0"} 0' in text
    assert 'hotshard_mount_request_duration_seconds_sum{opcode="open"} 100.000000' in text
    assert "hotshard_mount_in_flight 3" in text
    assert "# TYPE hotshard_mount_request_duration_seconds histogram" in text
    assert "hotshard_mount_read_bytes_total 0" in text
    assert text.count("# HELP") == len(set(re.findall("^# HELP (\\w+)", text, re.MULTILINE)))


def test_labels_are_escaped():
    text = render([], {("hotshard_mount_info", "uri", 's3://b/"q"\\\n'): 1})
    assert r'uri="s3://b/\"q\"\\\n"' in text


def test_names_follow_the_conventions():
    for name, about in ABOUT.items():
        assert re.fullmatch("hotshard_mount_[a-z_]+", name)
        assert about.text.endswith(".")
        assert (kind_of(name) == "counter") == name.endswith("_total")
