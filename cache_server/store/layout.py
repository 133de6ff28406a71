"""One cache directory as it lies on the disk: names, identity, lock. Blocking.

    hotshard.json          format version, node id, disk id
    index.db               the record of every sealed shard (records.py)
    sealed/ab/<digest>     content bytes and nothing else: the kernel shows this file to readers as it is
    partial/<number>       sparse, while filling
    quarantine/            what failed a check; the newest few

The node id is the same in all directories of a node. A directory that belongs to another node, was
written by a newer hotshard or holds somebody else's files is refused, never wiped.
"""

import contextlib
import fcntl
import json
import os
import uuid
from dataclasses import asdict, dataclass

FORMAT = 1
IDENTITY = "hotshard.json"
INDEX = "index.db"
SUBDIRS = ("sealed", "partial", "quarantine")
_MODE = 0o700  # who may read is decided at the local socket, not by the rights of the disk


class Refused(Exception):
    """The directory is not this server's to use; the message says why and what to do."""


class InUse(Exception):
    """Another live server has the directory."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of hotshard.json."""

    format: int
    node: str
    disk: str


def new_id() -> str:
    """A fresh node or disk id."""
    return uuid.uuid4().hex


def lock(path: str) -> int:
    """Make the directory if need be and lock it; the descriptor holds the lock until it is closed.

    Raises:
        InUse: a live process holds it. The kernel drops the lock of a dead one.
    """
    os.makedirs(path, mode=_MODE, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise InUse(path) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_identity(path: str) -> Identity | None:
    """What hotshard.json says; None: a directory that hotshard has not used yet.

    Raises:
        Refused: it is not ours to use.
        OSError: it cannot be read.
    """
    try:
        with open(os.path.join(path, IDENTITY), encoding="utf-8") as file:
            content = json.load(file)
        identity = Identity(content["format"], content["node"], content["disk"])
    except FileNotFoundError:
        foreign = sorted({INDEX, *SUBDIRS} & set(os.listdir(path)))
        if foreign:
            raise Refused(
                f"has {', '.join(foreign)} but no {IDENTITY}: not a hotshard directory; empty it to use it"
            ) from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{IDENTITY} cannot be understood; empty the directory to use it") from error
    if identity.format != FORMAT:
        raise Refused(
            f"format {identity.format} was written by another version of hotshard (this one knows"
            f" {FORMAT}); use that version, or empty the directory"
        )
    return identity


def make(path: str, identity: Identity) -> None:
    """Write the identity of a new directory (whole or not at all) and the subdirectories."""
    name = os.path.join(path, IDENTITY)
    if not os.path.exists(name):
        with open(name + ".new", "w", encoding="utf-8") as file:
            json.dump(asdict(identity), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name + ".new", name)
    for subdir in SUBDIRS:
        os.makedirs(os.path.join(path, subdir), mode=_MODE, exist_ok=True)
    for number in range(256):
        with contextlib.suppress(FileExistsError):
            os.mkdir(os.path.join(path, "sealed", f"{number:02x}"))


def sealed_path(path: str, digest: bytes) -> str:
    """Where a sealed shard lies."""
    name = digest.hex()
    return f"{path}/sealed/{name[:2]}/{name}"


def boot_id() -> str:
    """Names this run of the kernel: the page cache of another run is gone."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
