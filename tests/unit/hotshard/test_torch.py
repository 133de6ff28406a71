"""The PyTorch datasets; with PyTorch if it is there, else with the three names they take from it."""

import io
import os
import pickle
import sys
import tarfile
import types
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, BinaryIO

import pytest

from support.fake_server import FakeServer, FakeStore


@dataclass
class Worker:
    """What get_worker_info() returns inside a DataLoader's worker."""

    id: int
    num_workers: int


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch) -> Any:
    """hotshard.torch"""
    if find_spec("torch") is None:
        data = types.ModuleType("torch.utils.data")
        for name in ("Dataset", "IterableDataset"):
            setattr(data, name, type(name, (), {}))
        data.get_worker_info = lambda: None  # type: ignore[attr-defined]
        for name, module in (
            ("torch", types.ModuleType("torch")),
            ("torch.utils", types.ModuleType("torch.utils")),
            ("torch.utils.data", data),
        ):
            monkeypatch.setitem(sys.modules, name, module)
    import hotshard.torch

    yield hotshard.torch
    monkeypatch.delitem(sys.modules, "hotshard.torch")


def test_objects_one_by_one_and_in_batches(datasets: Any, server: FakeServer, store: FakeStore):
    uris = [f"s3://bucket/{i}" for i in range(10)]
    for i, uri in enumerate(uris):
        store.put(uri, bytes([i]) * 5)

    def sample(uri: str, data: bytes) -> tuple[int, int]:
        return int(uri.rpartition("/")[2]), data[0]

    dataset = datasets.ObjectDataset(uris, sample, address=server.address)
    assert len(dataset) == 10
    assert dataset[3] == (3, 3)
    server.calls.clear()
    assert dataset.__getitems__([7, 1, 7]) == [(7, 7), (1, 1), (7, 7)]
    assert server.calls == {"open_many": 1}
    plain = datasets.ObjectDataset(uris, address=server.address)
    assert pickle.loads(pickle.dumps(plain))[2] == b"\x02" * 5


def tar_of(names: Iterable[str]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(b"data"))
    return target.getvalue()


def names_in(shard: BinaryIO) -> Iterable[str]:
    with tarfile.open(fileobj=shard, mode="r|") as tar:
        for member in tar:
            yield member.name


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 3), (2, 2), (4, 4)])
def test_every_shard_is_read_by_one_worker_of_one_rank(
    datasets: Any,
    server: FakeServer,
    store: FakeStore,
    monkeypatch: pytest.MonkeyPatch,
    ranks: int,
    workers: int,
):
    uris = [f"s3://bucket/{i}.tar" for i in range(7)]
    for i, uri in enumerate(uris):
        store.put(uri, tar_of(f"{i}-{j}" for j in range(3)))
    seen: list[str] = []
    for rank in range(ranks):
        dataset = datasets.ShardDataset(
            uris, names_in, rank=rank, ranks=ranks, address=server.address
        )
        for number in range(max(1, workers)):
            worker = Worker(number, workers) if workers else None
            monkeypatch.setattr(datasets, "get_worker_info", lambda worker=worker: worker)
            seen += list(dataset)
    assert sorted(seen) == [f"{i}-{j}" for i in range(7) for j in range(3)]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.filterwarnings("ignore")
def test_forked_workers_of_a_data_loader(datasets: Any, server: FakeServer, store: FakeStore):
    from torch.utils.data import DataLoader

    contents = {f"s3://bucket/{i:03}": os.urandom(1000) for i in range(100)}
    for uri, data in contents.items():
        store.put(uri, data)
    dataset = datasets.ObjectDataset(sorted(contents), address=server.address)
    assert dataset[0] == contents["s3://bucket/000"]
    loader = DataLoader(dataset, batch_size=8, num_workers=4, collate_fn=list)
    assert [data for batch in loader for data in batch] == [contents[u] for u in sorted(contents)]
