"""Kubelet learns of the driver, whatever the order in which drivers come and go."""

import os

import grpc
import pytest

from hotshard.v1 import pluginregistration_pb2, pluginregistration_pb2_grpc


def test_kubelet_registers_the_driver(node):
    node.keeper()
    node.driver()
    info = node.register()
    assert (info.type, info.name) == ("CSIPlugin", "csi.hotshard.io")
    assert info.endpoint == node.options.csi_socket
    assert list(info.supported_versions) == ["1.0.0"]
    assert "kubelet has registered" in node.log()


def test_a_refusal_is_logged(node):
    node.keeper()
    node.driver()
    with grpc.insecure_channel(f"unix:{node.options.registration_socket}") as channel:
        stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
        status = pluginregistration_pb2.RegistrationStatus(plugin_registered=False, error="too old")
        stub.NotifyRegistrationStatus(status, timeout=10)
    assert "refuses to register csi.hotshard.io: too old" in node.log()


def test_the_socket_is_replaced_and_never_removed(node):
    """Kubelet forgets a driver whose registration socket goes away, whichever instance made it."""
    registry = os.path.dirname(node.options.registration_socket)
    node.keeper()
    first = node.driver()
    for _ in range(2):
        second = node.driver()
        first.terminate()
        assert node.register().name == "csi.hotshard.io"
        first = second
    first.terminate()
    assert os.listdir(registry) == [os.path.basename(node.options.registration_socket)]
    assert os.path.exists(node.options.csi_socket)
    with pytest.raises(grpc.RpcError):
        node.register()
    node.driver()
    assert node.register().name == "csi.hotshard.io"


def test_only_root_can_connect(node):
    node.keeper()
    node.driver()
    for path in (node.options.registration_socket, node.options.csi_socket):
        assert os.stat(path).st_mode & 0o777 == 0o600


def test_without_kubelets_directory_the_driver_ends(node):
    os.rmdir(os.path.dirname(node.options.registration_socket))
    driver = node.driver(ready=False)
    assert driver.wait() == 1
    assert "cannot be reached by kubelet" in node.log()
