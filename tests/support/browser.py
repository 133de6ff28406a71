"""A headless Chromium, driven over WebDriver: the Debian packages chromium and chromium-driver."""

import base64
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hotshard.cli.ports import free_ports
from support.waiting import LIMIT_S

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


class Browser:
    """One window."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = ""

    def begin(self, profile: Path, *, width: int, height: int, dark: bool) -> None:
        scheme = 0 if dark else 1
        flags = [f"--user-data-dir={profile}", f"--blink-settings=preferredColorScheme={scheme}"]
        options: dict[str, Any] = {
            "args": [*FLAGS, *flags],
            "mobileEmulation": {
                "deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}
            },
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def open(self, url: str) -> None:
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a script finds; the driver may run one, whatever the page allows."""
        body = {"script": script, "args": []}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def complaints(self) -> list[str]:
        """What stands in the browser's console: violations of the policy, above all."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def screenshot(self, path: Path) -> None:
        data = self._call("GET", f"{self._session}/screenshot", None)
        path.write_bytes(base64.b64decode(data))

    def end(self) -> None:
        if self._session:
            self._call("DELETE", self._session, None)

    def ready(self) -> bool:
        try:
            return bool(self._call("GET", "/status", None)["ready"])
        except OSError:
            return False

    def _call(self, method: str, path: str, body: object) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(
    directory: Path, *, width: int, height: int = 900, dark: bool = False
) -> Iterator[Browser]:
    """A window of that size; the test is skipped where there is no browser."""
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("chromedriver is not installed: apt-get install chromium chromium-driver")
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    found = Browser(port)
    try:
        _wait_until_ready(found, process)
        found.begin(directory / "profile", width=width, height=height, dark=dark)
        yield found
        found.end()
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_ready(found: Browser, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(int(LIMIT_S / 0.05)):
        if found.ready():
            return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("chromedriver did not start")
