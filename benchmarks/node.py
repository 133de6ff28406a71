"""A real cache server of its own, as a subprocess, for one row.

`python -m cache_server` with a configuration file, a cache directory and a socket below the row's
directory, and free ports on 127.0.0.1. The kernel kills it when the benchmark dies.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.results import BenchError
from benchmarks.sabotage import Sabotage

_READY_S = 120.0  # a million shards on a busy machine
_STOP_S = 30.0
_POLL_S = 0.02
_FLOOR = "2GiB"
# Asks the kernel to kill the process with its parent, then becomes the server. Not a preexec_fn: those
# run between fork and exec of a process that has threads.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, survives exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_SERVER = ("-m", "cache_server")
_RUN = "import runpy; runpy.run_module('cache_server', run_name='__main__', alter_sys=True)"
_SPOILED = {
    Sabotage.FAT: "ballast = bytes([1]) * (400 << 20);" + _RUN,
    Sabotage.LRU: (
        "import cache_server.sources as made; from benchmarks.policy.others import Lru;"
        "made.DatasetPolicy = lambda **_: Lru();" + _RUN
    ),
}


@dataclass(frozen=True, slots=True)
class Node:
    """A running server."""

    pid: int
    cache_dir: str
    socket_path: str
    grpc_address: str
    bulk_address: str
    admin_port: int

    def counters(self) -> dict[str, float]:
        """Its metrics: name with labels -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as reply:
            lines = reply.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}


@contextlib.contextmanager
def cache_node(
    directory: str,
    origins: Sequence[Mapping[str, object]],
    *,
    environment: Mapping[str, str] | None = None,
    spoiled: Sabotage = Sabotage.NONE,
    before: str = "",
    **settings: object,
) -> Iterator[Node]:
    """Start a server over some origins, with further configuration keys; stop it at the end.

    Args:
        directory: for everything it has.
        origins: as configured.
        environment: added to ours.
        spoiled: what is wrong with the server; most kinds of sabotage leave it alone.
        before: Python statements that it runs before it starts, ended by ";".
        settings: other keys of the configuration; some have defaults here.

    Raises:
        BenchError: it does not come up; with the end of its log.
    """
    os.makedirs(directory)
    grpc_port, bulk_port, admin_port = free_ports(3)
    cache_dir = os.path.join(directory, "cache")
    socket_path = os.path.join(directory, "s")
    config: dict[str, Any] = {
        "origins": list(origins),
        "cache_dirs": [{"path": cache_dir}],
        "grpc": {"listen": f"127.0.0.1:{grpc_port}"},
        "bulk": {"listen": f"127.0.0.1:{bulk_port}"},
        "admin": {"listen": f"127.0.0.1:{admin_port}"},
        "local_socket": {"path": socket_path},
        "log": {"level": "warning"},
        "free_space_floor": _FLOOR,  # the disk is not ours alone, and what we write goes soon
        **settings,
    }
    config_path = os.path.join(directory, "config.yaml")
    with open(config_path, "w", encoding="utf-8") as file:
        json.dump(config, file)  # JSON is YAML
    log_path = os.path.join(directory, "log")
    code = _SPOILED.get(spoiled, before and before + _RUN)
    program = ("-c", code) if code else _SERVER
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(os.getpid()), *program, "--config", config_path],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**_ours(), **(environment or {})},
            start_new_session=True,
        )
    try:
        _wait_ready(process, admin_port, log_path)
        grpc, bulk = f"127.0.0.1:{grpc_port}", f"127.0.0.1:{bulk_port}"
        yield Node(process.pid, cache_dir, socket_path, grpc, bulk, admin_port)
    except BaseException:
        _stop(process)  # that it would not stop is not the news now
        raise
    if process.poll() is not None:
        raise BenchError(f"the cache server died:\n{_tail(log_path)}")
    if not _stop(process):
        raise BenchError(f"the cache server ignored SIGTERM for {_STOP_S:g} s:\n{_tail(log_path)}")


def _ours() -> dict[str, str]:
    """Our environment, without what would configure the server."""
    return {k: v for k, v in os.environ.items() if not k.startswith("HOTSHARD_")}


def _wait_ready(process: "subprocess.Popen[bytes]", admin_port: int, log_path: str) -> None:
    deadline = time.monotonic() + _READY_S
    while not _is_ready(admin_port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the cache server did not come up:\n{_tail(log_path)}")
        time.sleep(_POLL_S)


def _is_ready(admin_port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin_port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(process: "subprocess.Popen[bytes]") -> bool:
    """Ask, then kill; whether asking was enough."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False
    return True


def _tail(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-20:])


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
        return ports
