"""Where a client looks for its server, and what it refuses."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from hotshard import options
from hotshard.core.errors import InvalidRequest, ServerUnavailable
from hotshard.options import Options, files_max, resolve, usual_sockets


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unix:///run/x.sock", ("unix", "/run/x.sock")),
        ("/run/x.sock", ("unix", "/run/x.sock")),
        ("localhost:7070", ("grpc", "localhost:7070")),
        ("10.0.0.1:1", ("grpc", "10.0.0.1:1")),
        ("[::1]:7070", ("grpc", "[::1]:7070")),
    ],
)
def test_addresses(text: str, found: tuple[str, str]):
    assert resolve(Options(text), {}) == found
    assert resolve(Options(), {"HOTSHARD_ADDRESS": text}) == found
    assert resolve(Options(text), {"HOTSHARD_ADDRESS": "other:1"}) == found


@pytest.mark.parametrize(
    "text",
    ["localhost", "localhost:", ":7070", "host:99999", "unix://x", "s3://a/b", "http://host:1"],
)
def test_no_addresses(text: str):
    with pytest.raises(InvalidRequest, match="not an address"):
        resolve(Options(text), {})


def test_a_path_that_no_socket_can_have():
    with pytest.raises(InvalidRequest, match="107"):
        resolve(Options("/" + "x" * 107), {})


def test_the_usual_places():
    assert usual_sockets({}, 0) == [options.NODE_SOCKET]
    assert usual_sockets({}, 7) == ["/tmp/hotshard-7/hotshard/local.sock", options.NODE_SOCKET]
    assert usual_sockets({"XDG_RUNTIME_DIR": "/run/user/7"}, 7) == [
        "/run/user/7/hotshard/local.sock",
        options.NODE_SOCKET,
    ]


def test_a_server_at_its_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "sock"
    monkeypatch.setattr(options, "usual_sockets", lambda *_: [str(tmp_path / "none"), str(place)])
    with pytest.raises(ServerUnavailable, match="HOTSHARD_ADDRESS"):
        resolve(Options(), {})
    place.write_text("not a socket")
    with pytest.raises(ServerUnavailable):
        resolve(Options(), {})
    place.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        assert resolve(Options(), {}) == ("unix", str(place))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make somebody else's socket")
def test_a_socket_that_somebody_else_made_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = tmp_path / "sock"
    monkeypatch.setattr(options, "usual_sockets", lambda *_: [str(place)])
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        os.chown(place, 65534, 65534)
        with pytest.raises(ServerUnavailable):
            resolve(Options(), {})


def test_options_that_cannot_work():
    wrongs: list[dict[str, Any]] = [
        {"timeout_s": 0.0},
        {"reconnect_s": -1.0},
        {"key": "k"},
        {"certificate": "c"},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidRequest):
            Options(**wrong)
    assert Options(ca="ca").tls
    assert not Options().tls


def test_how_many_files(monkeypatch: pytest.MonkeyPatch):
    import resource

    for soft, expected in ((1024, 256), (40, 16), (1 << 20, 1024), (-1, 1024)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert files_max(Options()) == expected
    assert files_max(Options(files_max=7)) == 7
