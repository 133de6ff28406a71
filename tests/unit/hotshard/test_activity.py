"""Two looks make a speed."""

import json
from typing import Any

import pytest

from hotshard.calls import DatasetStatus, DiskStatus, Money, ServerStatus, Totals
from hotshard.cli.activity import Activity, Look, Node, Speed, Watch
from hotshard.cli.top import _row, _sparkline


def status(at_s=0.0, hit=0, asked=0, **more):
    return ServerStatus(
        node_id="n",
        version="1",
        uptime_s=5.0,
        ready=True,
        disks=[DiskStatus("/d", "d", "ready", "", 100, 40, 1, 0)],
        datasets=[DatasetStatus("s3://b/x/", 1, 40)],
        money=Money(saved_usd=1.5),
        totals=Totals(at_s, hit, asked, 10, 20),
        **more,
    )


class Session:
    def __init__(self, *answers):
        self.answers = list(answers)

    def connect(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def status(self):
        return self.answers.pop(0)


def watching(*answers: ServerStatus) -> Watch:
    session: Any = Session(*answers)
    return Watch(session)


def test_speed_is_what_happened_between_two_looks():
    watch = watching(status(10.0, 100, 200), status(12.0, 160, 280))
    assert watch.look().speed == Speed()
    speed = watch.look().speed
    assert (speed.hit, speed.asked, speed.peer, speed.origin) == (30, 40, 0, 0)
    assert speed.hit_ratio == 0.75


def test_a_server_that_was_started_again_does_not_run_backwards():
    watch = watching(status(10.0, 100, 200), status(12.0, 1, 2))
    watch.look()
    assert watch.look().speed == Speed()


def test_the_document_is_json_and_says_who_does_not_answer():
    nodes = [
        Node(Look("a" * 32, "h:1", "z", "ready", status()), Speed(1, 2, 3, 4)),
        Node(Look("b" * 32, "h:2", "z", "lost", None, "gone"), Speed()),
    ]
    document = json.loads(json.dumps(Activity("c", nodes).document()))
    assert document["hit_ratio"] == 0.5
    assert document["saved_usd"] == 1.5
    assert document["datasets"] == [{"name": "s3://b/x/", "bytes": 40}]
    assert document["nodes"][0]["bytes_per_s"]["peer"] == 3
    assert document["nodes"][1] == {
        "id": "b" * 32,
        "address": "h:2",
        "zone": "z",
        "state": "lost",
        "reachable": False,
        "error": "gone",
    }
    assert len(_row(nodes[0])) == len(_row(nodes[1]))
    assert _row(nodes[1])[2] == "no answer"


@pytest.mark.parametrize(
    ("shares", "line"), [([0.0, 0.5, 1.0], "▁▅█"), ([None, 1.0], " █"), ([], "")]
)
def test_sparkline(shares, line):
    assert _sparkline(shares) == line
