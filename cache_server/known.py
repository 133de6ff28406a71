"""How large datasets are, as far as this node knows: the sizes of all objects listed or described.

Exact for a dataset that was listed whole, which a job does that reads it; otherwise less than the truth.
Counted as descriptions come and go, a fraction of a microsecond each.
"""

from collections import Counter
from collections.abc import Callable, Mapping

_DIRECTORIES_MAX = 10_000


class KnownSizes:
    """Bytes by dataset."""

    def __init__(self, dataset_of: Callable[[str], str]) -> None:
        self._dataset_of = dataset_of
        self._by_directory: dict[str, str] = {}
        self._bytes: Counter[str] = Counter()

    @property
    def bytes(self) -> Mapping[str, int]:
        """Dataset -> how many; what is not there is not known."""
        return self._bytes

    def add(self, uri: str, size: int) -> None:
        """An object is known now; a negative size: no longer."""
        dataset = self.dataset(uri)
        left = self._bytes[dataset] + size
        if left:
            self._bytes[dataset] = left
        else:
            del self._bytes[dataset]

    def dataset(self, uri: str) -> str:
        """The name of an object's dataset."""
        directory = uri[: uri.rfind("/") + 1]
        dataset = self._by_directory.get(directory)
        if dataset is None:
            if len(self._by_directory) >= _DIRECTORIES_MAX:
                self._by_directory.clear()
            dataset = self._by_directory[directory] = self._dataset_of(uri)
        return dataset
