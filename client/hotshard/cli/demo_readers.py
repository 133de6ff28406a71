"""The reader processes of the demo, as the demo sees them; what they do is in demo_reader.py."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from hotshard.cli.child import Child
from hotshard.cli.demo_data import Bucket, Sample
from hotshard.cli.exits import Failure


class Readers:
    """Several readers that read an epoch together, each its part of the order."""

    def __init__(
        self, stack: ExitStack, count: int, address: str, bucket: Bucket, plan: Sequence[Sample]
    ) -> None:
        """Start them; the stack stops them. Returns when all are ready to read."""
        self._children: list[Child] = []
        setup = {
            "address": address,
            "bucket": asdict(bucket),
            "readers": count,
            "samples": [asdict(sample) for sample in plan],
        }
        for index in range(count):
            child = Child(["-m", "hotshard.cli.demo_reader"], talks=True)
            stack.callback(child.stop)
            child.say(json.dumps({**setup, "index": index}))
            self._children.append(child)
        for child in self._children:
            self._answer(child)

    def epoch(self, epoch: int, through: str) -> tuple[float, list[dict[str, Any]]]:
        """Seconds until the last reader was done, and what each says."""
        begun = time.monotonic()
        for child in self._children:
            child.say(json.dumps({"epoch": epoch, "through": through}))
        answers = [self._answer(child) for child in self._children]
        return time.monotonic() - begun, answers

    @staticmethod
    def _answer(child: Child) -> dict[str, Any]:
        line = child.hear()
        if not line:
            raise Failure("a reader process ended early", "see its messages above")
        answer: dict[str, Any] = json.loads(line)
        return answer
