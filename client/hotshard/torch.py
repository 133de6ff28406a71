"""Datasets for PyTorch that read through hotshard.

`ObjectDataset` is map-style: one object per sample, and a whole batch of them in one go. `ShardDataset`
is iterable: it hands each shard (say, a tar file) to a function that yields its samples, and deals the
shards out to the workers of all ranks.

Both carry only options: a worker, forked or spawned, talks to the server on connections of its own.
Needs hotshard[torch].
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

try:
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ImportError as error:
    raise ImportError(
        "hotshard.torch needs PyTorch, which is not installed: pip install 'hotshard[torch]'"
    ) from error

from hotshard.client import Client
from hotshard.options import ConnectOptions, Options

if TYPE_CHECKING:
    from typing import Unpack

Decode = Callable[[str, bytes], Any]
"""Makes a sample of a uri and the object's bytes."""


def as_bytes(_uri: str, data: bytes) -> bytes:
    """The sample is the object itself."""
    return data


class ObjectDataset(Dataset):  # type: ignore[misc]
    """One sample per object, in the order of `uris`; give it to a DataLoader with any sampler."""

    def __init__(
        self,
        uris: Sequence[str],
        transform: Decode = as_bytes,
        *,
        address: str | None = None,
        **options: "Unpack[ConnectOptions]",
    ) -> None:
        self.uris = uris
        self.transform = transform
        self._client = Client(Options(address, **options))

    def __len__(self) -> int:
        return len(self.uris)

    def __getitem__(self, index: int) -> Any:
        uri = self.uris[index]
        return self.transform(uri, self._client.read(uri))

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """A batch; the DataLoader calls this with what the sampler has put together."""
        uris = [self.uris[index] for index in indices]
        return list(map(self.transform, uris, self._client.read_many(uris)))


class ShardDataset(IterableDataset):  # type: ignore[misc]
    """The samples of many shards; each shard is read by one worker of one rank.

    Args:
        uris: the shards, in the order to read them (shuffle them, the same way on each rank).
        samples: yields the samples of an open shard, e.g. from tarfile.open(fileobj=file, mode="r|").
        rank: of this process, and `ranks` how many there are, when training is distributed.
        ranks: see `rank`.
        address: as of `hotshard.connect`, like all further options.
        **options: the fields of `hotshard.options.Options`.
    """

    def __init__(
        self,
        uris: Sequence[str],
        samples: Callable[[BinaryIO], Iterable[Any]],
        *,
        rank: int = 0,
        ranks: int = 1,
        address: str | None = None,
        **options: "Unpack[ConnectOptions]",
    ) -> None:
        self.uris = uris
        self.samples = samples
        self._rank = rank
        self._ranks = ranks
        self._client = Client(Options(address, **options))

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        mine = self.uris[self._rank * count + number :: self._ranks * count]
        for uri in mine:
            with self._client.open(uri) as shard:
                yield from self.samples(shard)
