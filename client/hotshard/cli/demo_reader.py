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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xxhash

from hotshard.cli.demo_data import SEED, Bucket, Sample

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


def through_cache(cache: "hotshard.Client", mine: Sequence[Sample]) -> Result:
    """Read through hotshard."""
    result = Result()
    buffer = memoryview(bytearray(READ_BYTES))
    for batch in batches(mine):
        if batch[0].size > READ_BYTES:
            hasher, count = xxhash.xxh3_64(), 0
            with cache.open(batch[0].uri) as file:
                while got := file.readinto(buffer):
                    hasher.update(buffer[:got])
                    count += got
            result.check(batch[0], count, hasher.hexdigest())
            continue
        contents = cache.read_many([sample.uri for sample in batch])
        for sample, content in zip(batch, contents, strict=True):
            result.check(sample, len(content), xxhash.xxh3_64_hexdigest(content))
    return result


def direct(store: Any, pool: ThreadPoolExecutor, mine: Sequence[Sample]) -> Result:
    """Read straight from S3, with the same batches: the comparison."""
    import obstore

    def whole(sample: Sample) -> Any:
        return obstore.get(store, sample.key).bytes()

    result = Result()
    for batch in batches(mine):
        if batch[0].size > READ_BYTES:
            sample = batch[0]
            starts = range(0, sample.size, PART_BYTES)

            def part(start: int, sample: Sample = sample) -> Any:
                end = min(start + PART_BYTES, sample.size)
                return obstore.get_range(store, sample.key, start=start, end=end)

            hasher, count = xxhash.xxh3_64(), 0
            for content in pool.map(part, starts):
                hasher.update(content)
                count += len(content)
            result.check(sample, count, hasher.hexdigest())
            result.requests += len(starts)
            continue
        for sample, content in zip(batch, pool.map(whole, batch), strict=True):
            result.check(sample, len(content), xxhash.xxh3_64_hexdigest(content))
        result.requests += len(batch)
    return result


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
        _say({"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            mine = part_of(plan, order["epoch"], setup["index"], setup["readers"])
            result = (
                direct(store, pool, mine)
                if order["through"] == "s3"
                else through_cache(cache, mine)
            )
            _say(
                {
                    "objects": result.objects,
                    "bytes": result.bytes,
                    "requests": result.requests,
                    "wrong": result.wrong,
                }
            )


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
