"""Generates client/hotshard/v1 from protos/hotshard/v1, or checks that what is committed is fresh.

    python .ci/protos.py [--check]

The generator is pinned, and old on purpose: its output loads with every protobuf from 5.29 to 7, so the
client fits old training images. The plugin that writes the type stubs needs a newer protobuf than the
generator does, hence two environments of their own, both below .venv-protos.
"""

import filecmp
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "client" / "hotshard" / "v1"
TOOLS = {"generator": "grpcio-tools==1.71.2", "stubs": "mypy-protobuf==5.1.0"}
RUNTIME = "setuptools<81"  # the old generator finds its own files through pkg_resources
# The others have messages only, and get no *_grpc files.
WITH_SERVICE = {"cache.proto", "csi.proto", "pluginregistration.proto"}


def main(*, check: bool) -> int:
    """Generate, and compare or keep; the exit code."""
    try:
        tools = {name: tool_environment(name, pinned) for name, pinned in TOOLS.items()}
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"protos: SKIPPED, the pinned tools cannot be installed here: {error}", file=sys.stderr
        )
        return 0 if check else 1
    if not check:
        generate(tools, ROOT / "client")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(tools, Path(scratch))
        stale = differing(Path(scratch) / "hotshard" / "v1")
    for name in stale:
        print(f"protos: {name} is not what protos/ generates: run `make protos`", file=sys.stderr)
    return 1 if stale else 0


def tool_environment(name: str, requirement: str) -> Path:
    """The bin directory of an environment that holds one pinned tool."""
    directory = ROOT / ".venv-protos" / f"{name}-{requirement.rpartition('=')[2]}"
    stamp = directory / "installed"
    if not stamp.exists():
        print(f"protos: installing {requirement}", flush=True)
        venv.create(directory, clear=True, with_pip=False)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        into = ["--python", str(directory / "bin" / "python"), "install", "--quiet"]
        subprocess.run([*pip, *into, requirement, RUNTIME], check=True)
        stamp.touch()
    return directory / "bin"


def generate(tools: dict[str, Path], target: Path) -> None:
    """Run the generator over every .proto file."""
    protos = sorted((ROOT / "protos").rglob("*.proto"))
    services = [path for path in protos if path.name in WITH_SERVICE]
    messages = [f"--python_out={target}", f"--mypy_out=quiet:{target}"]
    stubs = [f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"]
    for outputs, files in ((messages, protos), (stubs, services)):
        command = [str(tools["generator"] / "python"), "-W", "ignore", "-m", "grpc_tools.protoc"]
        environment = {**os.environ, "PATH": f"{tools['stubs']}:{os.environ.get('PATH', '')}"}
        subprocess.run(
            [*command, f"-I{ROOT / 'protos'}", *outputs, *map(str, files)],
            check=True,
            env=environment,
        )


def differing(fresh: Path) -> list[str]:
    """Names of generated files that are missing, left over or different."""
    names = {path.name for directory in (fresh, GENERATED) for path in directory.glob("*_pb2*.py*")}
    _, mismatch, errors = filecmp.cmpfiles(fresh, GENERATED, sorted(names), shallow=False)
    return sorted([*mismatch, *errors])


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
