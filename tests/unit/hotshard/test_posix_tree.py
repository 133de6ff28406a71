"""A directory tree as a bucket: order, links, and what is no object."""

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.core.errors import NotFound, PermissionDenied
from hotshard.posix_tree import Tree, version_of

_NAME = st.text(st.sampled_from("ab-./0~é"), min_size=1, max_size=4).filter(
    lambda name: all(part not in {"", ".", ".."} for part in name.split("/"))
)


def keys(tree: Tree, prefix: str, after: str = "", *, recursive: bool = True) -> list[str]:
    return [entry.key for entry in tree.walk(prefix, after, recursive=recursive)]


def make(root: str, names: set[str]) -> list[str]:
    """Create files; those whose path another one blocks are left out."""
    made = []
    for name in sorted(names):
        path = os.path.join(root, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb"):
                made.append(path)
        except OSError:
            continue
    return sorted(made)


@given(st.sets(_NAME, max_size=12), st.data())
def test_order_resumption_and_prefixes_are_those_of_s3(
    names: set[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as root:
        made = make(root, names)
        tree = Tree(f"{root}/")
        assert keys(tree, f"{root}/") == made
        after = data.draw(st.sampled_from(["", *made]))
        start = data.draw(st.sampled_from(["", "a", "b", "a/", "a-"]))
        wanted = [key for key in made if key > after and key.startswith(f"{root}/{start}")]
        assert keys(tree, f"{root}/{start}", after) == wanted
        shallow = keys(tree, f"{root}/{start}", recursive=False)
        assert shallow == sorted(shallow)
        files = [key for key in shallow if not key.endswith("/")]
        assert files == [
            key
            for key in made
            if key.startswith(f"{root}/{start}") and "/" not in key[len(root) + 1 + len(start) :]
        ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "root"
    (inside / "dir").mkdir(parents=True)
    (inside / "dir" / "file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    return inside


def test_links_are_followed_inside_the_tree(root: Path) -> None:
    (root / "file-link").symlink_to("dir/file")
    (root / "dir-link").symlink_to(root / "dir")
    tree = Tree(f"{root}/")
    names = ["dir-link/file", "dir/file", "file-link"]
    assert keys(tree, f"{root}/") == [f"{root}/{name}" for name in names]
    for name in names:
        fd, status = tree.locate(f"{root}/{name}", "file:///x")
        os.close(fd)
        assert version_of(status) == version_of((root / "dir" / "file").stat())


def test_links_out_of_the_tree_are_refused_and_not_listed(root: Path) -> None:
    (root / "file-link").symlink_to("../outside/secret")
    (root / "dir-link").symlink_to("../outside")
    tree = Tree(f"{root}/")
    for name in ("file-link", "dir-link/secret"):
        with pytest.raises(PermissionDenied, match="link out of"):
            tree.locate(f"{root}/{name}", f"file://{root}/{name}")
    assert keys(tree, f"{root}/") == [f"{root}/dir/file"]
    assert keys(tree, f"{root}/dir-link/") == []
    assert keys(tree, f"{root}/", recursive=False) == [f"{root}/dir/"]


def test_a_neighbour_whose_name_begins_alike_is_outside(root: Path) -> None:
    neighbour = root.with_name("root-2")
    neighbour.mkdir()
    (neighbour / "file").touch()
    (root / "link").symlink_to(neighbour / "file")
    with pytest.raises(PermissionDenied):
        Tree(f"{root}/").locate(f"{root}/link", "file:///x")


def test_a_directory_that_becomes_a_link_out_of_the_tree_while_it_is_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def swapped(path: str) -> object:
        if not (root / "dir").is_symlink():
            (root / "dir").rename(root / "moved")
            (root / "dir").symlink_to("../outside")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", swapped)
    assert not [key for key in keys(Tree(f"{root}/"), f"{root}/dir/") if "secret" in key]


def test_the_root_may_itself_be_a_link(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    tree = Tree(f"{link}/")
    assert keys(tree, f"{link}/") == [f"{link}/dir/file"]
    fd, _ = tree.locate(f"{link}/dir/file", "file:///x")
    os.close(fd)


def test_links_that_lead_in_circles_end(root: Path) -> None:
    (root / "dir" / "up").symlink_to("..")
    (root / "dir" / "self").symlink_to("self")
    (root / "dir" / "nowhere").symlink_to("missing")
    assert keys(Tree(f"{root}/"), f"{root}/") == [f"{root}/dir/file"]


def test_special_files_are_no_objects(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        where = os.getcwd()
        os.chdir(root)  # the path of a socket is limited to 108 bytes
        sock.bind("socket")
        os.chdir(where)
    tree = Tree(f"{root}/")
    assert keys(tree, f"{root}/") == [f"{root}/dir/file"]
    for name, kind in [("pipe", "special"), ("socket", "special"), ("dir", "directory")]:
        with pytest.raises(NotFound, match=kind):
            tree.locate(f"{root}/{name}", "file:///x")


def test_a_name_that_is_not_utf8_is_left_out_and_told(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open(os.fsencode(root) + b"/bad-\xff", "wb"):
        pass
    assert keys(Tree(f"{root}/"), f"{root}/") == [f"{root}/dir/file"]
    assert "not UTF-8" in caplog.text


def test_a_tree_that_is_not_there_is_not_an_empty_one(root: Path) -> None:
    with pytest.raises(NotFound, match="no such directory"):
        keys(Tree(f"{root}/missing/"), f"{root}/missing/")


def test_deep_trees_are_walked(root: Path) -> None:
    deep = root / "/".join(["d"] * 900)
    deep.mkdir(parents=True)
    (deep / "leaf").touch()
    assert keys(Tree(f"{root}/"), f"{root}/")[0] == f"{deep}/leaf"


def test_files_that_vanish_during_a_walk_are_left_out(root: Path) -> None:
    for number in range(3):
        (root / f"k{number}").touch()
    walk = Tree(f"{root}/").walk(f"{root}/k", "", recursive=True)
    assert next(walk).key == f"{root}/k0"
    (root / "k1").unlink()
    assert [entry.key for entry in walk] == [f"{root}/k2"]
