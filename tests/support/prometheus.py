"""promtool, Prometheus' own checker; of the Debian package `prometheus`."""

import shutil
import subprocess

import pytest


def promtool() -> str:
    """Its path; the test is skipped where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
    return found


def check_metrics(text: str) -> None:
    """Have promtool look at the text of a /metrics page; it complains about names and formats."""
    found = subprocess.run(
        [promtool(), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
