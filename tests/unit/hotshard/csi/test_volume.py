"""What a publish request asks for, and why it is refused."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.csi.volume import ATTRIBUTES, Rejected, Request, check_place, wish

KUBELET = "/var/lib/kubelet"
TARGET = f"{KUBELET}/pods/1/volumes/kubernetes.io~csi/data/mount"
PLAIN = Request(
    "v1",
    TARGET,
    "mount",
    1,
    readonly=True,
    context={"origin": "s3://bucket/train", "csi.storage.k8s.io/ephemeral": "true"},
)


def asking(**changes) -> Request:
    attributes = changes.pop("attributes", None)
    if attributes is not None:
        changes["context"] = {"csi.storage.k8s.io/ephemeral": "true", **attributes}
    return dataclasses.replace(PLAIN, **changes)


def code(request: Request) -> str:
    with pytest.raises(Rejected) as caught:
        wish(request, KUBELET)
    return caught.value.code


def test_an_inline_volume():
    found = wish(PLAIN, KUBELET)
    assert found.uri == "s3://bucket/train/"
    assert found.options.mode == "auto"
    assert not found.multi_node


@pytest.mark.parametrize(
    ("origin", "prefix", "uri"),
    [
        ("s3://bb", "", "s3://bb/"),
        ("s3://bb/", "x", "s3://bb/x/"),
        ("s3://bb/a", "/x/y/", "s3://bb/a/x/y/"),
        ("file:///fsx", "train", "file:///fsx/train/"),
    ],
)
def test_origin_and_prefix_make_the_uri(origin, prefix, uri):
    assert wish(asking(attributes={"origin": origin, "prefix": prefix}), KUBELET).uri == uri


def test_attributes_and_mount_options_say_the_same_things():
    attributes = {"origin": "s3://bb/", "ttl_s": "300", "immutable": "true", "mode": "cached"}
    by_flags = asking(
        attributes={"origin": "s3://bb/"}, mount_flags=("ttl_s=300,immutable", "mode=cached", "ro")
    )
    one, other = wish(asking(attributes=attributes), KUBELET), wish(by_flags, KUBELET)
    assert one.options == other.options
    assert (one.options.ttl_s, one.options.immutable, one.options.mode) == (300.0, True, "cached")
    assert one.key == other.key


@pytest.mark.parametrize(
    "changes",
    [
        {"volume_id": ""},
        {"target": ""},
        {"access": ""},
        {"access_mode": 0},
        {"access_mode": 8},
        {"attributes": {}},
        {"attributes": {"origin": ""}},
        {"attributes": {"origin": "bucket/train"}},
        {"attributes": {"origin": "file:///a/../b"}},
        {"attributes": {"origin": "s3://bb/", "mode": "fast"}},
        {"attributes": {"origin": "s3://bb/", "ttl_s": "-1"}},
        {"attributes": {"origin": "s3://bb/", "immutable": "maybe"}},
        {"attributes": {"origin": "s3://bb/", "log_file": "/etc/passwd"}},
        {"attributes": {"origin": "s3://bb/", "address": "/run/other.sock"}},
        {"attributes": {"origin": "s3://bb/", "direct": "auto"}},
        {"attributes": {"origin": "s3://bb/", "read_ahead_kib": "10000000"}},
        {"attributes": {"origin": "s3://bb/", "workers": "100000"}},
        {"attributes": {"origin": "s3://bb/", "uid": "-1"}},
        {"attributes": {"origin": "s3://bb/", "umask": "9"}},
        {"attributes": {"origin": "s3://bb/", "ttl_s": "nan"}},
        {"attributes": {"origin": "s3://bb/", "request_timeout_s": "inf"}},
        {"attributes": {"mode": "socket", "origin": "s3://bb/"}},
        {"mount_flags": ("metrics_file=/etc/passwd",)},
        {"mount_flags": ("rw",)},
        {"attributes": {"origin": "s3://bb/", "ttl_s": "1"}, "mount_flags": ("ttl_s=2",)},
        {"mount_group": "wheel"},
        {"mount_group": "-1"},
        {"mount_group": str(1 << 32)},
        {"target": "/etc/cron.d"},
        {"target": f"{KUBELET}/../../../etc"},
        {"target": "pods/1/mount"},
        {"target": f"{KUBELET}/pods/{'x' * 5000}"},
    ],
)
def test_what_makes_no_sense_is_an_invalid_argument(changes):
    assert code(asking(**changes)) == "INVALID_ARGUMENT"


def test_a_block_volume_is_not_possible():
    assert code(asking(access="block")) == "FAILED_PRECONDITION"


@pytest.mark.parametrize("access_mode", [1, 4, 5, 6, 7])
def test_a_volume_to_write_to_is_not_possible(access_mode):
    request = asking(readonly=False, access_mode=access_mode, context={"origin": "s3://bb/"})
    assert code(request) == "FAILED_PRECONDITION"
    assert wish(dataclasses.replace(request, readonly=True), KUBELET).uri == "s3://bb/"


@pytest.mark.parametrize("access_mode", [2, 3])
def test_a_volume_to_read_from_need_not_say_readonly(access_mode):
    request = asking(readonly=False, access_mode=access_mode, context={"origin": "s3://bb/"})
    assert wish(request, KUBELET).multi_node == (access_mode == 3)


def test_an_inline_volume_always_looks_like_one_to_write_to():
    assert wish(asking(readonly=False), KUBELET).uri == "s3://bucket/train/"


def test_the_group_of_the_pod():
    assert wish(asking(mount_group="2000"), KUBELET).options.gid == 2000
    request = asking(attributes={"origin": "s3://bb/", "gid": "1"}, mount_group="2000")
    assert code(request) == "INVALID_ARGUMENT"


def test_a_short_timeout_is_possible():
    request = asking(attributes={"origin": "s3://bb/", "request_timeout_s": "2"})
    assert wish(request, KUBELET).options.request_timeout_s == 2


def test_the_socket():
    found = wish(asking(attributes={"mode": "socket"}), KUBELET)
    assert (found.uri, found.key) == ("", "")


def test_what_can_share_a_file_system():
    def key(**changes) -> str:
        return wish(asking(**changes), KUBELET).key

    assert key(volume_id="v2", target=TARGET + "2") == key()
    assert key(attributes={"origin": "s3://bucket/train/"}) == key()
    assert key(attributes={"origin": "s3://bucket/other"}) != key()
    assert key(mount_group="2000") != key()
    assert key(attributes={"origin": "s3://bucket/train", "ttl_s": "5"}) != key()


def test_what_kubelet_adds_changes_nothing_and_is_not_shown():
    tokens = {"csi.storage.k8s.io/serviceAccount.tokens": "SECRET"}
    request = asking(context={**PLAIN.context, **tokens})
    assert wish(request, KUBELET).fingerprint == wish(PLAIN, KUBELET).fingerprint
    assert "SECRET" not in repr(request)
    assert "SECRET" not in repr(wish(request, KUBELET))


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": {"origin": "s3://bucket/other"}},
        {"readonly": False},
        {"access_mode": 3},
        {"mount_group": "7"},
        {"volume_id": "v2"},
    ],
)
def test_requests_that_differ_have_other_fingerprints(changes):
    assert wish(asking(**changes), KUBELET).fingerprint != wish(PLAIN, KUBELET).fingerprint


@given(
    st.builds(
        Request,
        st.text(max_size=5),
        st.one_of(st.just(TARGET), st.text()),
        st.sampled_from(["mount", "block", ""]),
        st.integers(-1, 9),
        st.booleans(),
        st.dictionaries(st.one_of(st.sampled_from(ATTRIBUTES), st.text()), st.text()),
        st.lists(st.text(), max_size=3),
        st.text(max_size=4),
    )
)
def test_any_request_is_a_wish_or_is_rejected_with_a_message(request):
    try:
        answer = wish(request, KUBELET).target
    except Rejected as rejected:
        answer = f"{rejected.code} {rejected}"
    assert answer.startswith((KUBELET, "INVALID_ARGUMENT ", "FAILED_PRECONDITION "))
    assert len(answer) > len("FAILED_PRECONDITION ")


def test_places():
    check_place("v", TARGET, KUBELET, "target_path")
    with pytest.raises(Rejected, match="volume_path is missing"):
        check_place("v", "", KUBELET, "volume_path")
