"""One reader process of the demo: what a DataLoader worker does, without torch.

    python -m hotshard.cli.demo_reader        started by the demo, talks JSON lines over stdin and stdout

It is told once what to read and where, then an epoch per line: `{"through": "cache", "epoch": 1}`. It
reads its part of the shuffled order in batches, hashes every object it gets, and answers with counts and
with the names of objects whose bytes were wrong. It ends when stdin does.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from hotshard.cli.demo_data import BUCKET, PREFIX, SEED, Bucket, Sample

if TYPE_CHECKING:
    import hotshard

BATCH = 64
READ_BYTES = 4 << 20
PART_BYTES = 8 << 20
DIRECT_PARALLEL = 16
WRONG_NAMED_MAX = 100


@dataclass(slots=True)
class Result:
    """What one reader did in one epoch."""

    objects: int = 0
    bytes: int = 0
    requests: int = 0
    """GETs it sent to S3 itself."""
    wrong: list[str] = field(default_factory=list)
    """Whose bytes were not what was uploaded; the first of them."""

    def check(self, sample: Sample, count: int, digest: str) -> None:
        """Count an object, and compare it with what was uploaded."""
        self.objects += 1
        self.bytes += count
        wrong = count != sample.size or digest != sample.digest
        if wrong and len(self.wrong) < WRONG_NAMED_MAX:
            self.wrong.append(sample.uri)


def batches(mine: Sequence[Sample]) -> Iterator[list[Sample]]:
    """The order cut into batches of small objects; a shard is a batch of its own."""
    batch: list[Sample] = []
    for sample in mine:
        if sample.size > READ_BYTES:
            yield [sample]
            continue
        batch.append(sample)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


class Cached:
    """Reading through hotshard."""

    def __init__(self, cache: "hotshard.Client") -> None:
        self._cache = cache
        self._buffer = memoryview(bytearray(READ_BYTES))

    def names(self) -> set[str]:
        """The dataset, as a training job finds it."""
        return {entry.uri for entry in self._cache.list(PREFIX, recursive=True)}

    def epoch(self, mine: Sequence[Sample]) -> Result:
        """Read and check every object."""
        result = Result()
        for batch in batches(mine):
            if batch[0].size > READ_BYTES:
                self._shard(batch[0], result)
                continue
            contents = self._cache.read_many([sample.uri for sample in batch])
            for sample, content in zip(batch, contents, strict=True):
                result.check(sample, len(content), xxhash.xxh3_64_hexdigest(content))
        return result

    def _shard(self, sample: Sample, result: Result) -> None:
        hasher, count = xxhash.xxh3_64(), 0
        with self._cache.open(sample.uri, buffering=0) as file:
            while got := file.readinto(self._buffer):
                hasher.update(self._buffer[:got])
                count += got
        result.check(sample, count, hasher.hexdigest())


class Direct:
    """Reading straight from S3, in the same batches: the comparison."""

    def __init__(self, store: Any, pool: ThreadPoolExecutor) -> None:
        self._store = store
        self._pool = pool

    def names(self) -> set[str]:
        """The dataset, as a training job finds it."""
        import obstore

        pages = obstore.list(self._store, PREFIX.removeprefix(f"s3://{BUCKET}/"))
        return {f"s3://{BUCKET}/{entry['path']}" for page in pages for entry in page}

    def epoch(self, mine: Sequence[Sample]) -> Result:
        """Read and check every object."""
        result = Result()
        for batch in batches(mine):
            if batch[0].size > READ_BYTES:
                self._shard(batch[0], result)
                continue
            for sample, content in zip(batch, self._pool.map(self._whole, batch), strict=True):
                result.check(sample, len(content), xxhash.xxh3_64_hexdigest(content))
            result.requests += len(batch)
        return result

    def _whole(self, sample: Sample) -> Any:
        import obstore

        return obstore.get(self._store, sample.key).bytes()

    def _shard(self, sample: Sample, result: Result) -> None:
        import obstore

        def part(start: int) -> Any:
            end = min(start + PART_BYTES, sample.size)
            return obstore.get_range(self._store, sample.key, start=start, end=end)

        starts = range(0, sample.size, PART_BYTES)
        hasher, count = xxhash.xxh3_64(), 0
        for content in self._pool.map(part, starts):
            hasher.update(content)
            count += len(content)
        result.check(sample, count, hasher.hexdigest())
        result.requests += len(starts)


def part_of(plan: Sequence[Sample], epoch: int, index: int, readers: int) -> list[Sample]:
    """This reader's share of the epoch's order; every reader shuffles alike."""
    order = list(plan)
    random.Random(f"{SEED}/{epoch}").shuffle(order)  # noqa: S311
    return order[index::readers]


def main() -> None:
    """Serve the demo until stdin ends."""
    import hotshard

    setup = json.loads(sys.stdin.readline())
    plan = [Sample(**sample) for sample in setup["samples"]]
    store = Bucket(**setup["bucket"]).store()
    with hotshard.connect(setup["address"]) as cache, ThreadPoolExecutor(DIRECT_PARALLEL) as pool:
        sources: dict[str, Cached | Direct] = {"cache": Cached(cache), "s3": Direct(store, pool)}
        known: dict[str, set[str]] = {}
        _say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            through = order["through"]
            if through not in known:  # a job lists its dataset once
                known[through] = sources[through].names()
            mine = part_of(plan, order["epoch"], setup["index"], setup["readers"])
            result = sources[through].epoch(mine)
            result.wrong += [s.uri for s in mine if s.uri not in known[through]][:WRONG_NAMED_MAX]
            _say(asdict(result))


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
