"""Each alert fires when what it is about has lasted, and not before: promtool runs the real rules."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.prometheus import promtool

RULES = Path(__file__).parents[3] / "helm" / "hotshard" / "files" / "rules.yaml"
FOREVER = 200  # minutes


@dataclass(frozen=True)
class Scene:
    """Series with their values by the minute, and at which minutes the alert is silent and fires."""

    series: dict[str, str]
    quiet_m: int
    fires_m: int
    count: int = 1


def always(value, count=FOREVER):
    return f"{value}+0x{count}"


def growing(step, count=FOREVER):
    return f"0+{step}x{count}"


def after(minutes, series):
    """Nothing for a while, then this."""
    return f"0x{minutes} {series}"


OPENS = 'hotshard_request_duration_seconds_bucket{instance="a",path="local",method="open",le="%s"}'
SCENES = {
    "HotshardNotReady": Scene({'hotshard_ready{instance="a"}': f"1x9 {always(0)}"}, 14, 15),
    "HotshardInternalErrors": Scene(
        {'hotshard_requests_total{instance="a",code="internal",method="Stat"}': growing(1)}, 10, 12
    ),
    "HotshardOverloaded": Scene(
        {'hotshard_requests_total{instance="a",code="overloaded"}': growing(2400)}, 15, 17
    ),
    "HotshardMemoryFull": Scene(
        {
            'hotshard_memory_used_bytes{instance="a"}': always(97),
            'hotshard_memory_limit_bytes{instance="a"}': always(100),
        },
        14,
        15,
    ),
    "HotshardOpenFiles": Scene(
        {
            'process_open_fds{instance="a"}': always(90),
            'process_max_fds{instance="a"}': always(100),
        },
        14,
        15,
    ),
    "HotshardSlowOpens": Scene(
        {OPENS % "10": growing(50), OPENS % "60": growing(100), OPENS % "+Inf": growing(100)},
        15,
        17,
    ),
    "HotshardVersionsDiffer": Scene(
        {
            'hotshard_build_info{instance="a",version="1"}': always(1),
            'hotshard_build_info{instance="b",version="2"}': always(1),
        },
        119,
        120,
    ),
    "HotshardDiskLeftOut": Scene({'hotshard_disk_up{instance="a",disk="/d"}': always(0)}, 4, 5),
    "HotshardDiskCrowded": Scene(
        {
            'hotshard_disk_limit_bytes{instance="a",disk="/d"}': always(40),
            'hotshard_disk_capacity_bytes{instance="a",disk="/d"}': always(100),
        },
        29,
        30,
    ),
    "HotshardCorruptData": Scene(
        {'hotshard_quarantined_shards_total{instance="a",check="scrub"}': "0x9 1x100"}, 9, 11
    ),
    "HotshardThrashing": Scene(
        {
            'hotshard_evicted_bytes_total{instance="a",reason="space"}': growing(80),
            'hotshard_shard_lookup_bytes_total{instance="a",result="miss"}': growing(100),
        },
        60,
        62,
    ),
    "HotshardOriginFails": Scene(
        {
            'hotshard_origin_requests_total{instance="a",origin="o",outcome="ok"}': growing(90),
            'hotshard_origin_requests_total{instance="a",origin="o",outcome="origin_unavailable"}': (
                growing(10)
            ),
        },
        10,
        12,
    ),
    "HotshardOriginDenies": Scene(
        {
            'hotshard_origin_requests_total{instance="a",origin="o",outcome="permission"}': growing(
                1
            )
        },
        10,
        12,
    ),
    "HotshardOriginSlowsDown": Scene(
        {'hotshard_origin_slow_downs_total{instance="a",origin="o"}': growing(240)}, 15, 17
    ),
    "HotshardFetchesWait": Scene(
        {'hotshard_fetch_slots_waiting{instance="a",priority="demand"}': always(100)}, 14, 15
    ),
    "HotshardMemberSilent": Scene(
        {
            'hotshard_peer_breaker_open{instance="a",peer="p"}': always(1),
            'hotshard_peer_breaker_open{instance="b",peer="p"}': always(1),
            'hotshard_peer_breaker_open{instance="b",peer="q"}': always(1),
        },
        4,
        5,
    ),
    "HotshardMemberSlow": Scene(
        {
            **{
                f'hotshard_peer_latency_seconds{{instance="a",peer="{p}"}}': always(0.01)
                for p in "bcd"
            },
            'hotshard_peer_latency_seconds{instance="a",peer="slow"}': always(0.9),
        },
        14,
        15,
    ),
    "HotshardViewsDiffer": Scene(
        {
            'hotshard_members{instance="a",state="ready"}': always(8),
            'hotshard_members{instance="b",state="ready"}': always(7),
        },
        9,
        10,
    ),
    "HotshardMembersRefused": Scene(
        {'hotshard_members_refused_total{instance="a",reason="other_terms"}': growing(1)}, 15, 17
    ),
    "HotshardOriginReadTwice": Scene(
        {
            'hotshard_peers_exhausted_total{instance="a"}': growing(10),
            'hotshard_peer_requests_total{instance="a",path="bulk",outcome="ok"}': growing(100),
        },
        15,
        17,
    ),
    "HotshardCrossZoneTraffic": Scene(
        {'hotshard_cross_zone_bytes_total{instance="a"}': growing(2_400_000_000)}, 15, 17
    ),
    "HotshardMountReaderRestarts": Scene(
        {'hotshard_mount_reader_restarts_total{instance="a"}': "0x9 1 2 3 4 5 5x60"}, 9, 15
    ),
    "HotshardMountErrors": Scene(
        {'hotshard_mount_errors_total{instance="a",errno="EIO",opcode="read"}': growing(1)}, 10, 12
    ),
}


def test_every_alert_has_its_scene():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    names = [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert list(SCENES) == names


@pytest.mark.parametrize("fault", ["", "later"])
def test_alerts_fire_when_it_has_lasted_and_not_before(tmp_path, fault):
    """Once as it is, and once with a lie, to know that promtool would tell."""
    shutil.copy(RULES, tmp_path / "rules.yaml")
    tests = [_unit_test(name, scene, late=bool(fault)) for name, scene in SCENES.items()]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump(document))
    found = subprocess.run(
        [promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert found.returncode == (1 if fault else 0), found.stdout + found.stderr


def _unit_test(name, scene, *, late):
    firing = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    fires_m = scene.fires_m - (1 + scene.fires_m - scene.quiet_m if late else 0)
    samples = [{"labels": "{}", "value": scene.count}]
    return {
        "interval": "1m",
        "input_series": [{"series": k, "values": v} for k, v in scene.series.items()],
        "promql_expr_test": [
            {"expr": firing, "eval_time": f"{scene.quiet_m}m", "exp_samples": []},
            {"expr": firing, "eval_time": f"{fires_m}m", "exp_samples": samples},
        ],
    }
