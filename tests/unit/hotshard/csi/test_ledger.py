"""The file that says what is published: it survives its writer, and two of them take turns."""

import multiprocessing

import pytest

from hotshard.csi.ledger import Book, Ledger, Mount, Volume
from hotshard.mount.config import MountOptions, Plan

PLAN = Plan("s3://b/", "/m/1", "0:52", 7, None, MountOptions(mode="cached", gid=5), supervised=True)


def filled() -> Book:
    volume = Volume("/pods/1", "v1", "f", "m1", multi_node=True)
    return Book({"m1": Mount("m1", "k", PLAN)}, {volume.target: volume})


def test_what_is_written_is_read(tmp_path):
    ledger = Ledger(f"{tmp_path}/volumes.json")
    with ledger.open() as book:
        book.mounts, book.volumes = filled().mounts, filled().volumes
    with Ledger(f"{tmp_path}/volumes.json").open() as again:
        assert again == filled()
        assert [volume.volume_id for volume in again.users("m1")] == ["v1"]


def test_fields_of_a_later_version_are_ignored(tmp_path):
    text = filled().to_json().replace('"volume_id"', '"later": 1, "volume_id"')
    assert Book.from_json(text) == filled()


def test_a_change_that_fails_is_not_written(tmp_path):
    ledger = Ledger(f"{tmp_path}/volumes.json")
    with pytest.raises(RuntimeError), ledger.open() as book:
        book.mounts = filled().mounts
        raise RuntimeError
    with ledger.open() as book:
        assert book == Book()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "mounts": [], "volumes": []}'])
def test_a_file_that_cannot_be_read_is_kept_aside(tmp_path, text):
    path = tmp_path / "volumes.json"
    path.write_text(text)
    with Ledger(str(path)).open() as book:
        assert book == Book()
    assert (tmp_path / "volumes.json.unreadable").read_text() == text


def test_another_writer_is_noticed(tmp_path):
    ours, theirs = Ledger(f"{tmp_path}/v.json"), Ledger(f"{tmp_path}/v.json")
    with ours.open() as book:
        book.mounts = filled().mounts
    assert not ours.changed()
    with theirs.open() as book:
        book.mounts.clear()
    assert ours.changed()


def _add(path: str, first: int) -> None:
    ledger = Ledger(path)
    for number in range(first, first + 50):
        with ledger.open() as book:
            book.volumes[str(number)] = Volume(str(number), "v", "f", "", multi_node=False)


def test_writers_take_turns(tmp_path):
    path = f"{tmp_path}/v.json"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(path, first)) for first in (0, 50, 100)]
    for each in writers:
        each.start()
    for each in writers:
        each.join(60)
        assert each.exitcode == 0
    with Ledger(path).open() as book:
        assert len(book.volumes) == 150
