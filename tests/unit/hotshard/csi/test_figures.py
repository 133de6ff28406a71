"""The metrics of the driver, with those of its mounts added up."""

from prometheus_client.parser import text_string_to_metric_families

from hotshard.csi.figures import ABOUT, add_up, render
from hotshard.mount import metrics
from hotshard.mount.metrics import Tally


def of_a_mount(requests: int) -> str:
    tally = Tally()
    for _ in range(requests):
        tally.request(15, 0.002)
    tally.add(("hotshard_mount_opens_total", "mode", "cached"), requests)
    info = ("hotshard_mount_info", "mode", "cached", "target", f"/m{requests}", "uri", "s3://b/")
    return metrics.render([tally], {("hotshard_mount_passthrough",): 1, info: 1})


def test_equal_samples_are_added():
    sums = add_up([of_a_mount(2), of_a_mount(3)])
    assert sums['hotshard_mount_opens_total{mode="cached"}'] == 5
    assert sums["hotshard_mount_passthrough"] == 2
    assert sums['hotshard_mount_request_duration_seconds_count{opcode="read"}'] == 5
    assert sum(1 for sample in sums if sample.startswith("hotshard_mount_info")) == 2


def test_what_is_no_sample_is_left_out():
    assert add_up(["", "# HELP x y", "x", "x y", "torn"]) == {}


def test_prometheus_can_read_it():
    values = {
        ("hotshard_csi_volumes", "kind", "mount"): 2,
        ("hotshard_csi_volumes", "kind", "socket"): 1,
        ("hotshard_csi_calls_total", "method", "NodePublishVolume", "code", "OK"): 7,
    }
    text = render(values, [of_a_mount(2), of_a_mount(3), "of_a_later_version 1\n"])
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert "of_a_later_version" not in text
    found = {family.name: family for family in families}
    assert [sample.value for sample in found["hotshard_csi_volumes"].samples] == [2, 1]
    assert found["hotshard_csi_calls"].type == "counter"
    assert found["hotshard_mount_request_duration_seconds"].type == "histogram"


def test_every_metric_has_a_text():
    assert all(about.text.endswith(".") for about in ABOUT.values())
