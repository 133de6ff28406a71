"""What the driver is started with."""

import pytest

from hotshard.core.errors import ConfigError
from hotshard.csi.options import DriverOptions


def test_places_follow_from_the_options():
    options = DriverOptions("n1")
    assert options.csi_socket == "/var/lib/kubelet/plugins/csi.hotshard.io/csi.sock"
    assert options.registration_socket.endswith("/plugins_registry/csi.hotshard.io-reg.sock")
    assert options.published_dir == "/run/hotshard"
    name = options.registration_temporary.rpartition("/")[2]
    assert name.startswith(".")  # kubelet does not look at it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"node_id": ""}, "node id"),
        ({"node_id": "x" * 257}, "node id"),
        ({"name": "CSI"}, "driver name"),
        ({"name": "a" * 64}, "driver name"),
        ({"kubelet_dir": "var/lib"}, "kubelet dir"),
        ({"kubelet_dir": "/var/../lib"}, "kubelet dir"),
        ({"kubelet_dir": "/" + "x" * 100}, "at most 107 bytes"),
        ({"keeper_socket": "/run/hotshard/keeper.sock"}, "keeper socket"),
        ({"orphan_timeout_s": 0}, "orphan timeout"),
        ({"direct": "perhaps"}, "direct"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        DriverOptions(**{"node_id": "n1", **changes})


def test_every_mistake_is_reported_at_once():
    with pytest.raises(ConfigError) as caught:
        DriverOptions("", name="CSI", orphan_timeout_s=-1)
    assert len(caught.value.problems) == 3
