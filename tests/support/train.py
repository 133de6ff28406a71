"""A training program as users write it: a DataLoader with two workers over hotshard.torch, as a process.

    python -m support.train SOCKET fork|spawn PREFIX EPOCHS

Prints one JSON line per epoch: for each object its length and checksum, for each tar member likewise.
"""

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

import torch
import xxhash
from torch.utils.data import DataLoader

import hotshard
from hotshard.torch import ObjectDataset, ShardDataset

Sample = tuple[str, int, str]


def described(uri: str, data: bytes) -> Sample:
    return uri.rpartition("/")[2], len(data), xxhash.xxh3_64_hexdigest(data)


def members(file: BinaryIO) -> Iterator[Sample]:
    with tarfile.open(fileobj=io.BytesIO(file.read())) as archive:
        for member in archive:
            body = archive.extractfile(member)
            assert body is not None
            yield described(member.name, body.read())


def together(samples: list[Sample]) -> list[Sample]:
    return samples


def main(socket: str, method: str, prefix: str, epochs: int) -> None:
    with hotshard.connect(socket) as client:  # used before the workers are made, as programs do
        uris = sorted(entry.uri for entry in client.list(prefix) if hasattr(entry, "size"))
        objects = [uri for uri in uris if not uri.endswith(".tar")]
        shards = [uri for uri in uris if uri.endswith(".tar")]
        assert client.read(objects[0])
    small = ObjectDataset(objects, described, address=socket)
    assert small[0][1]  # in this process, too: its connection is not the workers'
    torch.manual_seed(1)
    loaders = [
        DataLoader(
            dataset,
            batch_size=7,
            shuffle=shuffle,
            num_workers=2,
            multiprocessing_context=method,
            persistent_workers=True,
            collate_fn=together,
        )
        for dataset, shuffle in (
            (small, True),
            (ShardDataset(shards, members, address=socket), False),
        )
    ]
    for _ in range(epochs):
        samples = [sample for loader in loaders for batch in loader for sample in batch]
        print(json.dumps(samples), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
