"""Other FUSE mounts of the same bucket, each with the settings its manual advises for data that stays.

rclone and s3fs mount the bucket itself. JuiceFS keeps objects of its own format, so the data is copied into
it first; its metadata is in a SQLite file on the same disk. Each keeps a cache on that disk, with room for
everything. Names and attributes may be kept for an hour by all of them, as by ours.
"""

import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

from benchmarks.results import BenchError
from benchmarks.rows.scene import Remote
from hotshard.mount import device

START_TIMEOUT_S = 30.0
_AN_HOUR = "3600"


def program(name: str) -> str | None:
    """Where a program is: beside our Python, or in PATH."""
    here = sysconfig.get_path("scripts")
    return shutil.which(name, path=f"{here}{os.pathsep}{os.environ.get('PATH', '')}")


def installed() -> list[str]:
    """The peers that can be measured here."""
    return [name for name in PEERS if program(name) is not None]


@contextmanager
def mounted(name: str, remote: Remote, directory: str) -> Iterator[str]:
    """Mount a peer; gives the directory with the data.

    Args:
        name: a key of PEERS.
        remote: the bucket.
        directory: a new directory for all its files.

    Raises:
        BenchError: it does not come up.
    """
    os.makedirs(os.path.join(directory, "mnt"))
    with PEERS[name](remote, directory) as path:
        yield path


@contextmanager
def _rclone(remote: Remote, directory: str) -> Iterator[str]:
    target = os.path.join(directory, "mnt")
    command = [
        "mount", f":s3:{remote.bucket}/data", target, "--read-only", "--vfs-cache-mode=full",
        f"--cache-dir={directory}/cache", "--dir-cache-time=1h", "--attr-timeout=1h",
        "--vfs-cache-max-age=1h", "--config=/dev/null",
    ]  # fmt: skip
    settings = {
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": remote.server.endpoint_url,
        "RCLONE_S3_ACCESS_KEY_ID": remote.server.access_key,
        "RCLONE_S3_SECRET_ACCESS_KEY": remote.server.secret_key,
        "RCLONE_S3_REGION": remote.server.region,
    }
    with _served("rclone", command, settings, directory):
        yield target


@contextmanager
def _s3fs(remote: Remote, directory: str) -> Iterator[str]:
    target = os.path.join(directory, "mnt")
    options = [
        f"url={remote.server.endpoint_url}", "use_path_request_style", "ro", "kernel_cache",
        f"use_cache={directory}/cache", "max_stat_cache_size=1000000",
        f"stat_cache_expire={_AN_HOUR}", f"attr_timeout={_AN_HOUR}", f"entry_timeout={_AN_HOUR}",
        "enable_noobj_cache", f"endpoint={remote.server.region}",
    ]  # fmt: skip
    command = [remote.bucket, target, "-f", "-o", ",".join(options)]
    with _served("s3fs", command, remote.server.environment, directory):
        yield os.path.join(target, "data")


@contextmanager
def _juicefs(remote: Remote, directory: str) -> Iterator[str]:
    target = os.path.join(directory, "mnt")
    meta = f"sqlite3://{directory}/meta.db"
    server = remote.server
    form = [
        "format", "--storage=s3", f"--bucket={server.endpoint_url}/{remote.bucket}",
        f"--access-key={server.access_key}", f"--secret-key={server.secret_key}", "--trash-days=0",
        meta, "peer",
    ]  # fmt: skip
    _run("juicefs", form)
    cache = [
        f"--cache-dir={directory}/cache", "--cache-size=100000", f"--open-cache={_AN_HOUR}",
        f"--attr-cache={_AN_HOUR}", f"--entry-cache={_AN_HOUR}",
        f"--dir-entry-cache={_AN_HOUR}", "--no-usage-report",
    ]  # fmt: skip
    data = remote.place.data
    with _served("juicefs", ["mount", meta, target, *cache], {}, directory):
        root = os.path.join(target, "data")  # beside its own hidden files
        for index in range(data.count):
            path = os.path.join(root, data.name(index))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data.content(index, 0, data.object_bytes))
        yield root


PEERS: Mapping[str, Callable[[Remote, str], AbstractContextManager[str]]] = {
    "rclone": _rclone,
    "s3fs": _s3fs,
    "juicefs": _juicefs,
}


@contextmanager
def _served(
    name: str, arguments: Sequence[str], settings: Mapping[str, str], directory: str
) -> Iterator[None]:
    """Run a program in the foreground while it serves `directory`/mnt."""
    target = os.path.join(directory, "mnt")
    path = program(name)
    if path is None:
        raise BenchError(f"{name} is not installed")
    log_path = os.path.join(directory, "log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            [path, *arguments], env={**os.environ, **settings}, stdout=log, stderr=log
        )
    try:
        give_up_s = time.monotonic() + START_TIMEOUT_S
        while device.mounted_at(target) is None:
            if process.poll() is not None or time.monotonic() > give_up_s:
                with open(log_path, encoding="utf-8", errors="replace") as log:
                    raise BenchError(f"{name} does not mount: {log.read()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        with suppress(OSError):
            device.unmount(target, lazy=True)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run(name: str, arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [program(name) or name, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        raise BenchError(f"{name}: {done.stderr[-2000:]}")
