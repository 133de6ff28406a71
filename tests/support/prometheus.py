"""promtool, Prometheus' own checker; of the Debian package `prometheus`."""

import shutil

import pytest


def promtool() -> str:
    """Its path; the test is skipped where it is not installed."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install --no-install-recommends prometheus")
    return found
