"""Fixtures of the tests on real mounts. One that hangs is aborted from outside: it cannot hang the run."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.mounts import FULL, Mounted


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, where nothing can be mounted."""
    ours = [item for item in items if "tests/fuse" in str(item.path)]
    if not os.path.exists("/dev/fuse") or os.geteuid() != 0:
        for item in ours:
            item.add_marker(pytest.mark.skip(reason="needs /dev/fuse and root"))
    if FULL:
        for item in ours:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mounts a local directory; everything is unmounted at the end, whatever happened."""
    made: list[Mounted] = []

    def make(source: Path, **options: object) -> Mounted:
        target = tmp_path / f"mnt{len(made)}"
        target.mkdir()
        made.append(Mounted(source, target, options))
        return made[-1]

    yield make
    for one in made:
        one.close()
