"""The CSI services over their socket, with real mounts: what the specification says of each call."""

import errno
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from hotshard.v1 import csi_pb2, csi_pb2_grpc
from support.kubernetes_node import NODE, publish_request

MODE = csi_pb2.VolumeCapability.AccessMode


def code(act, *arguments, **changes) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        act(*arguments, **changes)
    return str(caught.value.code().name)


@pytest.fixture
def volume(shared_node, data):
    """Publishes volumes of this origin by default, and unpublishes them at the end."""
    made = []

    def publish(name: str, target: str = "", **changes) -> str:
        target = target or shared_node.target(name)
        made.append((name, target))
        changes.setdefault("attributes", {"origin": data.origin})
        shared_node.publish(name, target, **changes)
        return target

    yield publish
    for name, target in made:
        shared_node.unpublish(name, target)
    assert shared_node.mounts() == []


# -- Identity ------------------------------------------------------------------------------------


def test_identity(shared_node):
    identity = csi_pb2_grpc.IdentityStub
    info = shared_node.call("GetPluginInfo", csi_pb2.GetPluginInfoRequest(), identity)
    assert info.name == "csi.hotshard.io"
    assert info.vendor_version
    request = csi_pb2.GetPluginCapabilitiesRequest()
    assert not shared_node.call("GetPluginCapabilities", request, identity).capabilities
    assert shared_node.call("Probe", csi_pb2.ProbeRequest(), identity).ready.value


def test_node_info_and_capabilities(shared_node):
    assert shared_node.call("NodeGetInfo", csi_pb2.NodeGetInfoRequest()).node_id == NODE
    reply = shared_node.call("NodeGetCapabilities", csi_pb2.NodeGetCapabilitiesRequest())
    rpc = csi_pb2.NodeServiceCapability.RPC
    assert {each.rpc.type for each in reply.capabilities} == {
        rpc.GET_VOLUME_STATS, rpc.VOLUME_CONDITION, rpc.VOLUME_MOUNT_GROUP,
    }  # fmt: skip


def test_calls_that_are_not_offered(shared_node):
    with grpc.insecure_channel(f"unix:{shared_node.options.csi_socket}") as channel:
        stage = channel.unary_unary("/csi.v1.Node/NodeStageVolume")  # type: ignore[var-annotated]
        assert code(stage, b"", timeout=10) == "UNIMPLEMENTED"


# -- NodePublishVolume ---------------------------------------------------------------------------


def test_a_published_volume_has_the_bytes_of_the_origin_and_is_read_only(volume, data):
    target = volume("v1")
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    for name, body in data.bodies.items():
        with open(f"{target}/{name}", "rb") as file:
            assert file.read() == body
    with pytest.raises(OSError) as caught:
        os.mkdir(f"{target}/new")
    assert caught.value.errno == errno.EROFS


def test_publishing_again_is_no_error_and_mounts_nothing_more(volume, shared_node, data):
    target = volume("v1")
    before = shared_node.mounts()
    for _ in range(3):
        shared_node.publish("v1", target, attributes={"origin": data.origin})
    assert shared_node.mounts() == before
    assert len(before) == 2  # the file system itself, and its place in the pod


def test_publishing_something_else_at_a_target_is_refused(volume, shared_node, data):
    target = volume("v1")
    others: list[dict[str, object]] = [
        {"attributes": {"origin": "s3://other-bucket/x"}},
        {"readonly": False},
        {"access_mode": MODE.SINGLE_NODE_READER_ONLY},
        {"flags": ("ttl_s=7",)},
        {"group": "2000"},
        {"attributes": {"mode": "socket"}},
    ]
    for other in others:
        changes = {"attributes": {"origin": data.origin}, **other}
        assert code(shared_node.publish, "v1", target, **changes) == "ALREADY_EXISTS", other
    assert os.listdir(target)


def test_another_volume_at_a_target_is_refused(volume, shared_node, data):
    target = volume("v1")
    attributes = {"origin": data.origin}
    assert code(shared_node.publish, "v2", target, attributes=attributes) == "ALREADY_EXISTS"


def test_a_volume_of_many_readers_can_be_at_many_targets(volume, shared_node):
    many = {"access_mode": MODE.MULTI_NODE_READER_ONLY, "ephemeral": False, "readonly": False}
    targets = [volume("pv", shared_node.target(f"pod-{i}"), **many) for i in range(3)]
    assert len({os.stat(target).st_dev for target in targets}) == 1


def test_a_volume_of_one_place_cannot_be_at_a_second(volume, shared_node, data):
    volume("pv", access_mode=MODE.SINGLE_NODE_READER_ONLY)
    other = shared_node.target("other")
    changes = {
        "attributes": {"origin": data.origin},
        "access_mode": MODE.SINGLE_NODE_READER_ONLY,
    }
    assert code(shared_node.publish, "pv", other, **changes) == "FAILED_PRECONDITION"
    assert not os.path.exists(other)


def test_fields_that_are_missing(shared_node, data):
    target = shared_node.target("p")
    whole = publish_request("v", target, attributes={"origin": data.origin})
    for field in ("volume_id", "target_path", "volume_capability"):
        request = csi_pb2.NodePublishVolumeRequest()
        request.CopyFrom(whole)
        request.ClearField(field)
        assert code(shared_node.call, "NodePublishVolume", request) == "INVALID_ARGUMENT", field
    for field in ("access_mode", "mount"):
        request = csi_pb2.NodePublishVolumeRequest()
        request.CopyFrom(whole)
        request.volume_capability.ClearField(field)  # type: ignore[arg-type]
        assert code(shared_node.call, "NodePublishVolume", request) == "INVALID_ARGUMENT", field
    assert code(shared_node.publish, "v", target) == "INVALID_ARGUMENT"
    assert not os.path.exists(target)


def test_capabilities_that_volumes_do_not_have(shared_node, data):
    target = shared_node.target("p")
    changes = {"attributes": {"origin": data.origin}, "ephemeral": False, "readonly": False}
    for mode in (
        MODE.SINGLE_NODE_WRITER,
        MODE.MULTI_NODE_SINGLE_WRITER,
        MODE.MULTI_NODE_MULTI_WRITER,
        MODE.SINGLE_NODE_SINGLE_WRITER,
        MODE.SINGLE_NODE_MULTI_WRITER,
    ):
        found = code(shared_node.publish, "v", target, access_mode=mode, **changes)
        assert found == "FAILED_PRECONDITION"
    request = publish_request("v", target, attributes={"origin": data.origin})
    request.volume_capability.block.SetInParent()
    assert code(shared_node.call, "NodePublishVolume", request) == "FAILED_PRECONDITION"
    assert not os.path.exists(target)


def test_attributes_that_make_no_sense(shared_node, data):
    target = shared_node.target("p")
    for wrong in ({"orgin": "s3://x/"}, {"origin": "bucket"}, {"origin": data.origin, "mode": "?"}):
        assert code(shared_node.publish, "v", target, attributes=wrong) == "INVALID_ARGUMENT"
    outside = f"{shared_node.root}/elsewhere"
    assert (
        code(shared_node.publish, "v", outside, attributes={"origin": data.origin})
        == "INVALID_ARGUMENT"
    )
    assert not os.path.exists(target)
    assert not os.path.exists(outside)


def test_an_origin_that_is_not_served(shared_node):
    target = shared_node.target("p")
    found = code(shared_node.publish, "v", target, attributes={"origin": "s3://not-configured/x"})
    assert found == "PERMISSION_DENIED"
    assert not os.path.exists(target)


def test_two_calls_for_one_target_at_one_time(volume, shared_node, data):
    target = volume("v1")
    shared_node.unpublish("v1", target)

    def publish(_: int) -> str:
        try:
            shared_node.publish("v1", target, attributes={"origin": data.origin})
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(publish, range(8)))
    assert "OK" in codes
    assert set(codes) <= {"OK", "ABORTED"}
    assert len(shared_node.mounts()) == 2


def test_the_group_of_the_pod_owns_the_files(volume):
    target = volume("v1", group="2000")
    found = os.stat(f"{target}/f3")
    assert found.st_gid == 2000
    assert found.st_mode & stat.S_IRGRP


def test_options_of_a_persistent_volume(volume):
    target = volume("v1", flags=("uid=1234", "umask=027"))
    found = os.stat(f"{target}/f3")
    assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (1234, 0o440)


def test_tokens_and_secrets_are_not_logged(volume, shared_node, data):
    attributes = {"origin": data.origin, "bad": "SECRET-VALUE"}
    assert (
        code(shared_node.publish, "x", shared_node.target("x"), attributes=attributes)
        == "INVALID_ARGUMENT"
    )
    volume("v1", secrets={"token": "SECRET-VALUE"})
    log = shared_node.log()
    assert "v1" in log
    assert "TOKEN-OF-POD" not in log
    assert "SECRET-VALUE" not in log


# -- NodeUnpublishVolume -------------------------------------------------------------------------


def test_unpublishing_removes_the_target_and_the_last_one_unmounts(volume, shared_node):
    one, other = volume("v1"), volume("v2")
    shared_node.unpublish("v1", one)
    assert not os.path.exists(one)
    assert os.listdir(other)
    shared_node.unpublish("v2", other)
    assert shared_node.mounts() == []
    assert os.listdir(shared_node.options.mounts_dir) == []


def test_unpublishing_what_is_not_published_is_no_error(volume, shared_node):
    target = volume("v1")
    for _ in range(2):
        shared_node.unpublish("v1", target)
    shared_node.unpublish("never", shared_node.target("never"))


def test_unpublishing_removes_a_directory_that_was_left_behind(shared_node):
    target = shared_node.target("p")
    os.mkdir(target)
    shared_node.unpublish("v", target)
    assert not os.path.exists(target)


def test_unpublishing_never_removes_what_is_not_ours(shared_node):
    target = shared_node.target("p")
    os.mkdir(target)
    with open(f"{target}/of-somebody", "w"):
        pass
    assert code(shared_node.unpublish, "v", target) == "INTERNAL"
    assert os.listdir(target) == ["of-somebody"]


def test_unpublishing_another_volume_is_refused(volume, shared_node):
    target = volume("v1")
    assert code(shared_node.unpublish, "v2", target) == "NOT_FOUND"
    assert os.listdir(target)


def test_unpublishing_with_files_open_on_the_node(volume, shared_node, data):
    target = volume("v1", flags=("mode=cached",))
    with open(f"{target}/f5", "rb") as file:
        shared_node.unpublish("v1", target)
        assert not os.path.exists(target)
        assert file.read() == data.bodies["f5"]  # detached, served until the last one closes it


def test_unpublishing_needs_both_names(shared_node):
    assert code(shared_node.unpublish, "", shared_node.target("p")) == "INVALID_ARGUMENT"
    assert code(shared_node.unpublish, "v", "") == "INVALID_ARGUMENT"
    assert code(shared_node.unpublish, "v", "/etc") == "INVALID_ARGUMENT"


# -- NodeGetVolumeStats --------------------------------------------------------------------------


def test_stats_of_a_volume(volume, shared_node, data):
    target = volume("v1")
    os.listdir(target)
    reply = shared_node.stats("v1", target)
    usage = {each.unit: each for each in reply.usage}
    assert usage[csi_pb2.VolumeUsage.BYTES].total >= sum(map(len, data.bodies.values()))
    assert usage[csi_pb2.VolumeUsage.INODES].total == len(data.bodies)
    assert not reply.volume_condition.abnormal
    assert reply.volume_condition.message


def test_stats_of_what_is_not_published(volume, shared_node):
    target = volume("v1")
    assert code(shared_node.stats, "v2", target) == "NOT_FOUND"
    assert code(shared_node.stats, "v1", shared_node.target("other")) == "NOT_FOUND"
    assert code(shared_node.stats, "", target) == "INVALID_ARGUMENT"
    assert code(shared_node.stats, "v1", "") == "INVALID_ARGUMENT"
