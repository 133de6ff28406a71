"""Where data would be kept: the directories, what they lie on, and what is free there."""

import os
import tempfile
from dataclasses import dataclass

from cache_server.config import Amount, CacheDirConfig, ServerConfig
from cache_server.page.markup import size
from hotshard.core.findings import Finding, fail, ok, warn

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "glusterfs", "9p", "fuse", "fuseblk"}
MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True, slots=True)
class Mount:
    """What a path lies on."""

    point: str
    kind: str
    source: str
    device: str
    """Major and minor number."""


def check(config: ServerConfig) -> list[Finding]:
    """All cache directories."""
    found = []
    for directory in config.cache_dirs:
        found += _directory(directory, config.free_space_floor)
    return found


def _directory(directory: CacheDirConfig, floor: Amount) -> list[Finding]:
    name = f"cache dir {directory.path}"
    existing = directory.path
    while not os.path.isdir(existing) and existing != "/":
        if os.path.lexists(existing):
            return [fail(name, f"{existing} is no directory", "name a directory in cache_dirs")]
        existing = os.path.dirname(existing)
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        remedy = f"let uid {os.geteuid()} write there, or mount the volume read-write"
        return [fail(name, f"{existing} cannot be written: {error.strerror}", remedy)]
    return [_medium(name, mount_of(existing)), _space(name, existing, directory, floor)]


def _medium(name: str, mount: Mount) -> Finding:
    fact = f"on {mount.source} ({mount.kind}, mounted at {mount.point})"
    if mount.kind in NETWORK or mount.kind.startswith("fuse."):
        remedy = "a cache on the network is no faster than its origin: use a local disk"
        return warn(name, fact, remedy)
    if mount.kind in MEMORY:
        remedy = (
            "it takes memory away from the jobs, and is empty after a restart: use a local disk"
        )
        return warn(name, fact, remedy)
    if mount.kind == "overlay":
        remedy = "that is the container's own file system: mount a hostPath on the NVMe"
        return warn(name, fact, remedy)
    if mount.point == "/":
        remedy = "that is the root disk, which the kubelet guards: give the cache a disk of its own"
        return warn(name, fact, remedy)
    if _rotates(mount.device):
        return warn(name, f"{fact}, a rotating disk", "use an NVMe or SSD")
    nvme = mount.source.startswith("/dev/nvme") or mount.source.startswith("/dev/md")
    return ok(name, f"{fact}{', NVMe' if nvme else ''}")


def _space(name: str, path: str, directory: CacheDirConfig, floor: Amount) -> Finding:
    stats = os.statvfs(path)
    total, free = stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize
    least = floor.size_bytes if floor.size_bytes is not None else int((floor.share or 0.0) * total)
    wanted = directory.capacity_bytes
    capacity = (
        wanted.size_bytes if wanted.size_bytes is not None else int((wanted.share or 0.0) * total)
    )
    kept = _kept_bytes(directory.path)
    room = max(0, free - least) + kept
    fact = (
        f"{size(free)} free of {size(total)}, {size(least)} stay free,"
        f" room for {size(min(room, capacity))} of a capacity of {size(capacity)}"
    )
    if free <= least and not kept:
        remedy = "nothing can be kept: make space, or lower free_space_floor"
        return fail(f"{name}: space", fact, remedy)
    if room < capacity / 2:
        remedy = (
            "others fill the file system: give the cache a disk of its own, or lower capacity_bytes"
        )
        return warn(f"{name}: space", fact, remedy)
    return ok(f"{name}: space", fact)


def _kept_bytes(path: str) -> int:
    """About what the cache itself keeps there; sealed files of one directory in 256 stand for all."""
    total = 0
    for part in ("sealed/00", "sealed/80"):
        try:
            with os.scandir(os.path.join(path, part)) as entries:
                total += sum(entry.stat().st_blocks * 512 for entry in entries)
        except OSError:
            continue
    return total * 128


def mount_of(path: str) -> Mount:
    """What a path lies on."""
    real = os.path.realpath(path)
    best = Mount("/", "unknown", "unknown", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            fields, kind = left.split(" "), right.split(" ")
            point = fields[4].encode().decode("unicode_escape")
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best.point):
                best = Mount(point, kind[0], kind[1], fields[2])
    return best


def _rotates(device: str) -> bool:
    for path in (
        f"/sys/dev/block/{device}/queue/rotational",
        f"/sys/dev/block/{device}/../queue/rotational",
    ):
        try:
            with open(path, encoding="ascii") as file:
                return file.read().strip() == "1"
        except OSError:
            continue
    return False
