"""Writes what the image installs: versions and hashes of all packages, for both of its architectures.

    python .ci/lock.py

Resolves the extras in EXTRAS, and what builds the wheel, with pip as it is set up here, for the image's
Python; the lists name no index, so that whoever builds the image chooses one.
"""

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "helm" / "image"
PYTHON = "3.13"
EXTRAS = "server,cli,direct,otel"
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(36, 4, -1)))


def main() -> int:
    """Write both lists."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    (IMAGE / "requirements.txt").write_text(locked([f"{ROOT}[{EXTRAS}]"]))
    (IMAGE / "build-requirements.txt").write_text(locked(build))
    return 0


def locked(wanted: list[str]) -> str:
    """One line for each package, with the hashes of its wheels."""
    hashes: dict[str, set[str]] = {}
    for architecture in ARCHITECTURES:
        for package in resolved(wanted, architecture):
            found = package["download_info"].get("archive_info")
            if found is None:
                continue  # hotshard itself
            meta = package["metadata"]
            name = f"{meta['name'].lower().replace('_', '-')}=={meta['version']}"
            hashes.setdefault(name, set()).add(found["hashes"]["sha256"])
    lines = ["# Made by .ci/lock.py.\n"]
    for name in sorted(hashes):
        digests = " ".join(f"--hash=sha256:{digest}" for digest in sorted(hashes[name]))
        lines.append(f"{name} {digests}\n")
    return "".join(lines)


def resolved(wanted: list[str], architecture: str) -> list[dict[str, Any]]:
    """What pip would install on a machine like the image."""
    platforms = [f"--platform={glibc}_{architecture}" for glibc in GLIBC]
    with tempfile.TemporaryDirectory() as nowhere:
        target = f"--target={nowhere}/none"
        fixed = ["--ignore-installed", "--only-binary=:all:", "--implementation=cp", target]
        options = ["--dry-run", "--quiet", "--report=-", f"--python-version={PYTHON}", *fixed]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
        reply = subprocess.run(
            [*pip, *options, *platforms, *wanted], check=True, capture_output=True, text=True
        )
    return json.loads(reply.stdout)["install"]  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
