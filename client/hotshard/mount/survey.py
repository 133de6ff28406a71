"""A look at what is to be mounted: which mode suits its files."""

from hotshard.mount.source import Source

SMALL_BYTES = 1 << 20
"""Up to here an open through us costs a reader more than the second copy in memory does."""
_DEPTH = 8
_PAGE = 1000


def sizes(source: Source, uri: str) -> list[int] | None:
    """The sizes of files in one page of the first directory that has any; None: the prefix is empty.

    Raises:
        HotshardError: the source refuses.
    """
    for depth in range(_DEPTH):
        page = source.names(uri, "", _PAGE)
        if page.objects:
            return [info.size for info in page.objects]
        if not page.prefixes:
            return [] if depth else None
        uri = page.prefixes[0]
    return []


def choose(found: list[int], *, immutable: bool) -> str:
    """The mode of a mount whose user leaves it to us.

    Without opens, a replaced file is noticed by its reads only: that is for data that never changes.
    """
    small = bool(found) and sorted(found)[(len(found) - 1) // 2] <= SMALL_BYTES
    return "no_open" if immutable and small else "passthrough"
