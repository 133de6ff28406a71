"""`cp`: an object, or everything below a prefix, to local files.

A file appears under its name only when it is whole: it is written beside it under a temporary name, its
size compared with the object's, then renamed. Several files are copied at a time by threads; reads and
writes release the interpreter lock.
"""

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from io import RawIOBase
from typing import TYPE_CHECKING

import click

from hotshard.cli import exits, output
from hotshard.cli.exits import Failure
from hotshard.cli.session import Session
from hotshard.core.errors import HotshardError
from hotshard.core.objects import ObjectInfo

if TYPE_CHECKING:
    import hotshard

CHUNK_BYTES = 4 << 20
WAITING_PER_THREAD = 4  # copies handed out ahead, so that a listing of any size stays in bounds
FAILURES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Copy:
    """One object and where it goes."""

    info: ObjectInfo
    directory: str
    key: str
    """Below the directory; "/" makes directories."""


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path())
@click.option("-r", "--recursive", is_flag=True, help='SOURCE is a prefix, even without its "/".')
@click.option(
    "-j",
    "--parallel",
    type=click.IntRange(1, 64),
    default=8,
    show_default=True,
    help="Files at a time.",
)
@click.pass_obj
def cp(session: Session, source: str, target: str, recursive: bool, parallel: int) -> int:
    """Copy SOURCE, an object or a prefix (ends in "/"), to the local path TARGET.

    An object goes to the file TARGET, or into the directory TARGET. A prefix keeps its tree below
    TARGET. Exits with 3 if some objects could not be copied; the others are there.
    """
    if recursive and not source.endswith("/"):
        source += "/"
    with session.connect() as cache, output.progress_bar() as bar:
        task = bar.add_task("copy", total=None, note="")

        def advance(count: int) -> None:
            bar.advance(task, count)

        copier = Copier(cache, advance)
        if not source.endswith("/"):
            copier.copy(one_object(cache.stat(source), target))
            return exits.OK
        failures = copier.copy_all(below_prefix(cache, source, target), parallel)
    for failure in failures[:FAILURES_SHOWN]:
        output.note(failure)
    if len(failures) > FAILURES_SHOWN:
        output.note(f"failed: {len(failures) - FAILURES_SHOWN} more")
    return exits.PARTIAL if failures else exits.OK


def one_object(info: ObjectInfo, target: str) -> Copy:
    """The object becomes the file `target`, or a file of its name in the directory `target`."""
    if target.endswith("/") or os.path.isdir(target):
        return Copy(info, target, info.uri.rpartition("/")[2])
    directory, name = os.path.split(target)
    return Copy(info, directory, name)


def below_prefix(cache: "hotshard.Client", prefix: str, target: str) -> Iterator[Copy]:
    """Every object below the prefix keeps its place in the tree."""
    for entry in cache.list(prefix, recursive=True):
        if isinstance(entry, ObjectInfo) and not entry.uri.endswith("/"):
            yield Copy(entry, target, entry.uri[len(prefix) :])


def local_path(directory: str, key: str) -> str:
    """Where a key goes; refuses one that no file can be named after, or that leaves the directory."""
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise Failure(f"{key!r} is no file name", "copy it alone, to a name of your choice")
    return os.path.join(directory, *parts)


class Copier:
    """Copies objects to files; `advance` hears of every piece of bytes that was written."""

    def __init__(self, cache: "hotshard.Client", advance: Callable[[int], None]) -> None:
        self._cache = cache
        self._advance = advance
        self._stopped = threading.Event()

    def copy_all(self, plan: Iterator[Copy], parallel: int) -> list[str]:
        """Copy everything; a line for each object that failed."""
        failures: list[str] = []
        waiting: dict[Future[None], Copy] = {}
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="cp")
        try:
            for copy in plan:
                waiting[pool.submit(self.copy, copy)] = copy
                if len(waiting) >= parallel * WAITING_PER_THREAD:
                    settled = wait(waiting, return_when=FIRST_COMPLETED).done
                    failures += [f for done in settled if (f := _failure(done, waiting.pop(done)))]
            failures += [f for done, copy in waiting.items() if (f := _failure(done, copy))]
        finally:
            self._stopped.set()
            pool.shutdown(cancel_futures=True)
        return failures

    def copy(self, copy: Copy) -> None:
        """Copy one object; the file is whole, or not there."""
        path = local_path(copy.directory, copy.key)
        directory, name = os.path.split(path)
        os.makedirs(directory or ".", exist_ok=True)
        temporary = os.path.join(directory, f".{name[:100]}.{secrets.token_hex(4)}.part")
        try:
            with open(temporary, "xb", buffering=0) as file:
                self._pour(copy.info, file)
            os.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _pour(self, info: ObjectInfo, target: RawIOBase) -> None:
        total = 0
        with self._cache.open(info.uri, buffering=0) as source:
            buffer = memoryview(bytearray(min(CHUNK_BYTES, source.size)))
            while buffer and (count := source.readinto(buffer)):
                if self._stopped.is_set():
                    raise Failure("interrupted")
                output.write_all(target, buffer[:count])
                self._advance(count)
                total += count
            if total != source.size:
                raise Failure(f"got {total} of {source.size} bytes", "run the command again")


def _failure(done: Future[None], copy: Copy) -> str:
    """What to tell of a copy that has ended, or ends soon; empty if it went well."""
    error = done.exception()
    if error is None:
        return ""
    if isinstance(error, (HotshardError, Failure, OSError)):
        return f"failed: {output.printable(copy.info.uri)}: {error}"
    raise error
