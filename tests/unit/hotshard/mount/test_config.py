import pytest

from hotshard.core.errors import ConfigError
from hotshard.mount.config import MountOptions, Plan, parse_options


def test_words_of_fstab():
    options = parse_options(
        "ro,_netdev,x-systemd.automount,mode=cached,ttl_s=5,allow_other=no,umask=077"
    )
    assert (options.mode, options.ttl_s, options.allow_other, options.umask) == (
        "cached",
        5.0,
        False,
        0o77,
    )
    assert parse_options("") == MountOptions()
    assert parse_options("immutable").immutable
    assert parse_options("metrics_file=/run/x.prom").metrics_file == "/run/x.prom"
    assert parse_options("metrics_port=9000").metrics_port == 9000


def test_every_mistake_at_once():
    with pytest.raises(ConfigError) as caught:
        parse_options("mode=fast,ttl_s=soon,colour=red,threads=0,uid")
    text = str(caught.value)
    for word in ("mode=fast", "ttl_s=soon", "colour", "threads=0", "uid"):
        assert word in text


@pytest.mark.parametrize(
    "word",
    [
        "uid=-1",
        "gid=4294967295",
        "umask=1777",
        "read_ahead_kib=99999",
        "ttl_s=nan",
        "list_timeout_s=inf",
    ],
)
def test_values_out_of_range(word):
    with pytest.raises(ConfigError, match=word.partition("=")[0]):
        parse_options(word)


@pytest.mark.parametrize(
    ("word", "takes"),
    [
        ("ttl_s=x", "takes a finite number"),
        ("hang_timeout_s=nan", "takes a finite number"),
        ("threads=2.5", "takes a whole number"),
        ("uid=" + 400 * "9", "takes a whole number"),
        ("umask=088", "takes an octal number, as 022"),
        ("immutable=maybe", "yes or no"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_what_the_option_takes(word, takes):
    with pytest.raises(ConfigError) as caught:
        parse_options(word)
    assert f"{word}: {takes}" in str(caught.value)


def test_a_plan_travels():
    plan = Plan("s3://b/p/", "/mnt", "0:5", 7, None, parse_options("mode=cached"))
    assert Plan.from_json(plan.to_json()) == plan


def test_a_plan_of_another_version_has_fields_we_do_not_know():
    plan = Plan("s3://b/p/", "/mnt", "0:5", 7, None, MountOptions())
    text = plan.to_json().replace('"mode"', '"old": 1, "mode"').replace('"uri"', '"new": 2, "uri"')
    assert Plan.from_json(text) == plan
