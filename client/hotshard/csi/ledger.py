"""What is published on this node, in a file: what a driver that was killed has to go on with.

Two drivers may be alive at a time, while one takes the place of the other. So the file, and not the memory
of either, is the truth: whoever changes something locks it, reads it, and writes it anew in one step.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hotshard.mount.config import Plan

log = logging.getLogger(__name__)

FORMAT = 1


@dataclass(slots=True)
class Mount:
    """A file system that is mounted once, and bound to as many pods as use it."""

    name: str
    """Of this very file system; never used again."""
    key: str
    """Volumes with this key can share it."""
    plan: Plan


@dataclass(slots=True)
class Volume:
    """What one pod has at one path."""

    target: str
    volume_id: str
    fingerprint: str
    """Of the request; see `volume.Wish`."""
    mount: str
    """The name of its file system; empty: the socket directory."""
    multi_node: bool


@dataclass(slots=True)
class Book:
    """Everything that is published."""

    mounts: dict[str, Mount] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    """By target path."""

    def users(self, mount: str) -> list[Volume]:
        """The volumes on a file system."""
        return [volume for volume in self.volumes.values() if volume.mount == mount]

    def to_json(self) -> str:
        """The file's content."""
        return json.dumps(
            {
                "format": FORMAT,
                "mounts": [
                    {"name": m.name, "key": m.key, "plan": m.plan.to_json()}
                    for m in self.mounts.values()
                ],
                "volumes": [asdict(volume) for volume in self.volumes.values()],
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> "Book":
        """The book a file holds.

        Raises:
            ValueError, KeyError, TypeError: it holds none.
        """
        raw: dict[str, Any] = json.loads(text)
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']}, this program knows {FORMAT}")
        mounts = [Mount(m["name"], m["key"], Plan.from_json(m["plan"])) for m in raw["mounts"]]
        names = {field.name for field in fields(Volume)}  # a later version may add some
        volumes = [
            Volume(**{n: v for n, v in each.items() if n in names}) for each in raw["volumes"]
        ]
        return cls({m.name: m for m in mounts}, {v.target: v for v in volumes})


class Ledger:
    """The file. `open` is not reentrant."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = (0, 0)

    @contextlib.contextmanager
    def open(self) -> Iterator[Book]:
        """The book, for us alone; what was changed is written at the end, unless that raised."""
        with open(f"{self._path}.lock", "a", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            book = Book.from_json(before) if before else Book()
            yield book
            after = book.to_json()
            if after != before:
                self._write(after)
            self._seen = self._stamp()

    def changed(self) -> bool:
        """Whether somebody else has written since `open` was last used."""
        return self._stamp() != self._seen

    def _stamp(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> str:
        try:
            with open(self._path, encoding="utf-8") as file:
                text = file.read()
        except FileNotFoundError:
            return ""
        try:
            Book.from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            aside = f"{self._path}.unreadable"
            log.error("%s cannot be read (%s); moved to %s", self._path, error, aside)  # noqa: TRY400
            os.replace(self._path, aside)
            return ""
        return text

    def _write(self, text: str) -> None:
        temporary = f"{self._path}.new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
