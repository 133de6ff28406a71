"""A few bad files are kept."""

from cache_server.store.quarantine import FILES_MAX, Quarantine


def new_quarantine(tmp_path, bytes_max) -> Quarantine:
    (tmp_path / "q").mkdir(exist_ok=True)
    return Quarantine(str(tmp_path / "q"), bytes_max)


def take(quarantine, tmp_path, name, size) -> None:
    (tmp_path / "bad").write_bytes(bytes(size))
    quarantine.take(str(tmp_path / "bad"), name)
    assert not (tmp_path / "bad").exists()


def kept(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "q").iterdir())


def test_the_number_of_files_is_bounded(tmp_path):
    quarantine = new_quarantine(tmp_path, 1 << 20)
    for number in range(FILES_MAX + 3):
        take(quarantine, tmp_path, f"{number:02}", 10)
    assert kept(tmp_path) == [f"{number:02}" for number in range(3, FILES_MAX + 3)]
    assert quarantine.bytes == 10 * FILES_MAX
    assert new_quarantine(tmp_path, 1 << 20).bytes <= 10 * FILES_MAX


def test_the_bytes_are_bounded(tmp_path):
    quarantine = new_quarantine(tmp_path, 100)
    take(quarantine, tmp_path, "a", 60)
    take(quarantine, tmp_path, "huge", 101)
    assert kept(tmp_path) == ["a"]
    take(quarantine, tmp_path, "b", 50)
    assert (kept(tmp_path), quarantine.bytes) == (["b"], 50)


def test_a_missing_file_is_no_error(tmp_path):
    new_quarantine(tmp_path, 100).take(str(tmp_path / "none"), "x")
    assert kept(tmp_path) == []
