"""What must not be evicted: uris of objects, and prefixes that end in "/"."""

from collections.abc import Iterable


class Pins:
    """A set of uris that answers for every uri below them."""

    def __init__(self) -> None:
        self._objects: frozenset[str] = frozenset()
        self._prefixes: tuple[str, ...] = ()

    def set(self, uris: Iterable[str]) -> None:
        """Replace them all. What a reader in another thread sees is the old set or the new one."""
        uris = set(uris)
        self._objects = frozenset(uri for uri in uris if not uri.endswith("/"))
        self._prefixes = tuple(sorted(uri for uri in uris if uri.endswith("/")))

    def covers(self, uri: str) -> bool:
        """Whether an object is pinned."""
        return uri in self._objects or uri.startswith(self._prefixes)

    def as_list(self) -> list[str]:
        """In order."""
        return sorted(self._objects.union(self._prefixes))
