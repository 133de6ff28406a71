from hotshard.core.objects import ObjectInfo
from hotshard.mount.source import Names
from hotshard.mount.survey import SMALL_BYTES, choose, sizes


class Tree:
    """uri of a directory -> its page."""

    def __init__(self, pages: dict[str, Names]) -> None:
        self.pages = pages

    def names(self, prefix: str, token: str, page_size: int) -> Names:
        assert token == ""
        return self.pages.get(prefix, Names((), (), ""))


def info(size: int) -> ObjectInfo:
    return ObjectInfo("s3://b/x", "v", size, 0)


def test_the_first_directory_with_files_is_looked_at():
    tree = Tree(
        {
            "s3://b/": Names((), ["s3://b/a/", "s3://b/z/"], ""),
            "s3://b/a/": Names([info(5), info(6)], (), "more"),
        }
    )
    assert sizes(tree, "s3://b/") == [5, 6]  # type: ignore[arg-type]


def test_nothing_and_directories_without_end():
    assert sizes(Tree({}), "s3://b/") is None  # type: ignore[arg-type]
    endless = {"s3://b/" + "a/" * i: Names((), ["s3://b/" + "a/" * (i + 1)], "") for i in range(99)}
    assert sizes(Tree(endless), "s3://b/") == []  # type: ignore[arg-type]
    assert sizes(Tree({"s3://b/": Names((), ["s3://b/a/"], "")}), "s3://b/") == []  # type: ignore[arg-type]


def test_only_small_files_that_never_change_are_opened_by_nobody():
    assert choose([100, 100, 1 << 30], immutable=True) == "no_open"
    assert choose([100], immutable=False) == "passthrough"
    assert choose([SMALL_BYTES + 1], immutable=True) == "passthrough"
    assert choose([], immutable=True) == "passthrough"
