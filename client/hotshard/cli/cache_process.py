"""A real cache server as a child process: for the demo, the benchmarks and the tests.

It runs `python -m cache_server` with a configuration file in a directory of its own, on a socket there
and on free ports of 127.0.0.1. It never outlives us (child.py).
"""

import http.client
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hotshard.cli.child import STOP_TIMEOUT_S, Child
from hotshard.cli.ports import free_ports

START_TIMEOUT_S = 60.0
GET_TIMEOUT_S = 30.0
POLL_S = 0.02
LOG_LINES = 20
SERVER = ("-m", "cache_server")


class CacheProcessError(RuntimeError):
    """The server did not come up; the message has the end of its log."""


class CacheProcess:
    """One server; may be stopped, killed and started again over the same files."""

    def __init__(
        self,
        directory: str,
        document: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        program: Sequence[str] = SERVER,
    ) -> None:
        """Write its configuration.

        Args:
            directory: for all its files; made if it is not there.
            document: configuration keys beyond addresses and the cache dir; may replace those too.
            environment: added to ours, of which HOTSHARD_ variables are left out.
            program: arguments of the Python that becomes the server.
        """
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.cache_dir = os.path.join(directory, "cache")
        self.socket = os.path.join(directory, "s")
        self.grpc, self.admin = (f"127.0.0.1:{port}" for port in free_ports(2))
        self._log = os.path.join(directory, "server.log")
        config_path = os.path.join(directory, "hotshard.yaml")
        config = {
            "cache_dirs": [{"path": self.cache_dir}],
            "grpc": {"listen": self.grpc},
            "admin": {"listen": self.admin},
            "local_socket": {"path": self.socket, "mode": "0600"},
            **document,
        }
        with open(config_path, "w", encoding="utf-8") as file:
            json.dump(config, file, indent=2)  # JSON is YAML
        ours = {k: v for k, v in os.environ.items() if not k.startswith("HOTSHARD_")}
        self._environment = {**ours, **(environment or {})}
        self._arguments = [*program, "--config", config_path]
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """What local clients are told."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._child is not None, "it was not started"
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._child is not None, "it was not started"
        return self._child.exit_code

    def start(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Start it and wait until it is ready.

        Raises:
            CacheProcessError: it ended, or is not ready in time.
        """
        self.launch()
        deadline = time.monotonic() + timeout_s
        while not self.ready():
            if self.exit_code is not None or time.monotonic() > deadline:
                self.stop()
                raise CacheProcessError(f"the cache server did not start:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def launch(self) -> None:
        """Start it and do not wait."""
        with open(self._log, "ab") as log:
            self._child = Child(self._arguments, environment=self._environment, stderr=log)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """SIGTERM, then SIGKILL; idempotent."""
        if self._child is not None:
            self._child.stop(timeout_s)

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory kill would be."""
        os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def ready(self) -> bool:
        """Whether /readyz says so."""
        try:
            return self.get("/readyz")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an admin page."""
        connection = http.client.HTTPConnection(self.admin, timeout=GET_TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def counters(self) -> dict[str, float]:
        """All counters and gauges by name."""
        document = json.loads(self.get("/status")[1])
        return {name: float(value) for name, value in document["counters"].items()}

    def log_tail(self) -> str:
        """The last lines of its log."""
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-LOG_LINES:])

    def __enter__(self) -> "CacheProcess":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
