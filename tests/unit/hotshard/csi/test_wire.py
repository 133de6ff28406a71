"""Our part of csi.proto and of kubelet's registration has the bytes that the specifications give it.

Expected bytes are put together here from field numbers of csi.proto 1.11 and of kubelet's
pluginregistration/v1, not by protobuf.
"""

from hotshard.v1 import csi_pb2, pluginregistration_pb2

VARINT, LENGTH = 0, 2


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3 | VARINT, value])
    raw = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | LENGTH, len(raw)]) + raw


def entry(number: int, key: str, value: str) -> bytes:
    return field(number, field(1, key) + field(2, value))


def test_publish():
    mount = field(1, "fuse") + field(2, "ro") + field(2, "ttl_s=5") + field(3, "2000")
    capability = field(2, mount) + field(3, field(1, 3))
    raw = (
        field(1, "v1") + entry(2, "p", "q") + field(3, "/s") + field(4, "/t") + field(5, capability)
        + field(6, 1) + entry(7, "k", "secret") + entry(8, "origin", "s3://b/")
    )  # fmt: skip
    request = csi_pb2.NodePublishVolumeRequest.FromString(raw)
    assert request.volume_id == "v1"
    assert dict(request.publish_context) == {"p": "q"}
    assert (request.staging_target_path, request.target_path) == ("/s", "/t")
    found = request.volume_capability
    assert found.WhichOneof("access_type") == "mount"
    assert found.mount.fs_type == "fuse"
    assert list(found.mount.mount_flags) == ["ro", "ttl_s=5"]
    assert found.mount.volume_mount_group == "2000"
    assert found.access_mode.mode == found.access_mode.MULTI_NODE_READER_ONLY
    assert request.readonly
    assert dict(request.secrets) == {"k": "secret"}
    assert dict(request.volume_context) == {"origin": "s3://b/"}
    assert request.SerializeToString(deterministic=True) == raw


def test_a_block_volume():
    request = csi_pb2.NodePublishVolumeRequest.FromString(field(5, field(1, b"")))
    assert request.volume_capability.WhichOneof("access_type") == "block"


def test_what_we_do_not_know_is_carried_along():
    raw = field(1, "v1") + field(2, "/t") + field(15, "of a later version")
    request = csi_pb2.NodeUnpublishVolumeRequest.FromString(raw)
    assert (request.volume_id, request.target_path) == ("v1", "/t")
    assert request.SerializeToString() == raw


def test_capabilities():
    able = csi_pb2.NodeServiceCapability
    reply = csi_pb2.NodeGetCapabilitiesResponse(
        capabilities=[
            able(rpc=able.RPC(type=kind))
            for kind in (able.RPC.GET_VOLUME_STATS, able.RPC.VOLUME_CONDITION,
                         able.RPC.VOLUME_MOUNT_GROUP)
        ]
    )  # fmt: skip
    raw = b"".join(field(1, field(1, field(1, kind))) for kind in (2, 4, 6))
    assert reply.SerializeToString() == raw


def test_stats():
    usage = csi_pb2.VolumeUsage(available=1, total=3, used=2, unit=csi_pb2.VolumeUsage.INODES)
    reply = csi_pb2.NodeGetVolumeStatsResponse(
        usage=[usage], volume_condition=csi_pb2.VolumeCondition(abnormal=True, message="gone")
    )
    raw = field(1, field(1, 1) + field(2, 3) + field(3, 2) + field(4, 2))
    assert reply.SerializeToString() == raw + field(2, field(1, 1) + field(2, "gone"))


def test_identity_and_node():
    info = csi_pb2.GetPluginInfoResponse(name="n", vendor_version="1", manifest={"a": "b"})
    assert info.SerializeToString() == field(1, "n") + field(2, "1") + entry(3, "a", "b")
    probe = csi_pb2.ProbeResponse()
    probe.ready.value = True
    assert probe.SerializeToString() == field(1, field(1, 1))
    node = csi_pb2.NodeGetInfoResponse(node_id="n1", max_volumes_per_node=9)
    assert node.SerializeToString() == field(1, "n1") + field(2, 9)


def test_registration():
    info = pluginregistration_pb2.PluginInfo(
        type="CSIPlugin", name="n", endpoint="/e", supported_versions=["1.0.0"]
    )
    raw = field(1, "CSIPlugin") + field(2, "n") + field(3, "/e") + field(4, "1.0.0")
    assert info.SerializeToString() == raw
    status = pluginregistration_pb2.RegistrationStatus(plugin_registered=True, error="e")
    assert status.SerializeToString() == field(1, 1) + field(2, "e")


def test_the_names_of_the_calls():
    services = {
        **csi_pb2.DESCRIPTOR.services_by_name,
        **pluginregistration_pb2.DESCRIPTOR.services_by_name,
    }
    calls = {f"/{s.full_name}/{m.name}" for s in services.values() for m in s.methods}
    assert calls == {
        "/csi.v1.Identity/GetPluginInfo",
        "/csi.v1.Identity/GetPluginCapabilities",
        "/csi.v1.Identity/Probe",
        "/csi.v1.Node/NodePublishVolume",
        "/csi.v1.Node/NodeUnpublishVolume",
        "/csi.v1.Node/NodeGetVolumeStats",
        "/csi.v1.Node/NodeGetCapabilities",
        "/csi.v1.Node/NodeGetInfo",
        "/pluginregistration.Registration/GetInfo",
        "/pluginregistration.Registration/NotifyRegistrationStatus",
    }
