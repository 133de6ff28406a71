"""The store against a tiny model, through fills, evictions, pins and restarts of both kinds."""

import asyncio
import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cache_server.store.options import CacheDir, NoSpace, NotAdmitted, Space
from cache_server.store.store import Store
from cache_server.store.volume import Partial, footprint
from hotshard.core.checksum import Algorithm
from hotshard.core.errors import CorruptData
from support.stores import content_of, crash, make_key, new_store, report_of, sums_of

SIZES = (0, 1, 5_000, 70_000, 130_000, 300_000)
CAPACITIES = (600_000, 1_000_000)
KEYS = {
    (group, number): make_key(f"s3://b/{group}/{number}", SIZES[number])
    for group in "xy"
    for number in range(len(SIZES))
}
NAMES = st.sampled_from(sorted(KEYS))
GROUPS = st.sampled_from("xy")


class StoreMachine(RuleBasedStateMachine):
    """`sealed` is what may be there (the policy evicts as it likes); nothing else may be."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name)
        self.sealed: set[tuple[str, int]] = set()
        self.pinned: set[str] = set()
        self.partials: dict[tuple[str, int], Partial] = {}
        self.store: Store
        self.open_store()

    def open_store(self) -> None:
        dirs = [
            CacheDir(str(self.path / f"disk{n}"), Space(capacity))
            for n, capacity in enumerate(CAPACITIES)
        ]
        self.store = new_store(self.path, dirs=dirs)
        self.run(self.store.start())

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    def there(self):
        return {name for name, key in KEYS.items() if self.store.contains(key.digest)}

    @rule(name=NAMES)
    def begin(self, name):
        if name in self.partials or name in self.there():
            return
        try:
            self.partials[name] = self.run(self.store.begin(KEYS[name]))
        except NotAdmitted:
            assert any(each[0] not in self.pinned for each in self.there())
        except NoSpace:
            room = max(CAPACITIES) - sum(footprint(KEYS[each].size) for each in self.partials)
            pinned = sum(footprint(KEYS[n].size) for n in self.there() if n[0] in self.pinned)
            # With nothing in the way it must fit somewhere.
            assert self.partials or pinned or room < footprint(KEYS[name].size)

    @precondition(lambda self: self.partials)
    @rule(data=st.data(), right=st.booleans())
    def seal(self, data, right):
        name = data.draw(st.sampled_from(sorted(self.partials)))
        partial = self.partials.pop(name)
        content = content_of(KEYS[name])
        os.pwrite(partial.file.fd, content, 0)
        sums = sums_of(content, Algorithm.XXH3_64)
        if not right and sums:
            sums[-1] ^= 1
        try:
            self.run(self.store.seal(partial, sums, Algorithm.XXH3_64, None))
        except CorruptData:
            assert not right
        else:
            assert right or not sums
            assert self.store.contains(KEYS[name].digest)
            self.sealed.add(name)

    @precondition(lambda self: self.partials)
    @rule(data=st.data())
    def discard(self, data):
        name = data.draw(st.sampled_from(sorted(self.partials)))
        self.run(self.store.discard(self.partials.pop(name)))

    @rule(names=st.lists(NAMES, max_size=6))
    def read(self, names):
        there = self.there()
        files = self.run(self.store.open_many([KEYS[name].digest for name in names]))
        for name, file in zip(names, files, strict=True):
            assert (file is not None) == (name in there)
            if file is not None:
                key = KEYS[name]
                assert os.pread(file.fd, key.size + 1, 0) == content_of(key)
                assert self.store.cached_fd(key.digest) is file

    @rule(group=GROUPS, include_pinned=st.booleans())
    def evict(self, group, include_pinned):
        spared = group in self.pinned and not include_pinned
        going = {name for name in self.there() if name[0] == group and not spared}
        size = sum(KEYS[name].size for name in going)
        got = self.run(self.store.evict(f"s3://b/{group}/", include_pinned=include_pinned))
        assert got == (len(going), size)
        self.sealed -= going

    @rule(group=GROUPS)
    def pin(self, group):
        self.pinned.add(group)
        self.run(self.store.pin(f"s3://b/{group}/"))

    @rule(group=GROUPS)
    def unpin(self, group):
        self.pinned.discard(group)
        self.run(self.store.unpin(f"s3://b/{group}/"))

    @rule(clean=st.booleans())
    def restart(self, clean):
        before = self.there()
        self.partials.clear()
        self.run(self.store.close() if clean else crash(self.store))
        self.open_store()
        assert self.there() == before
        assert sum(disk.partial_bytes for disk in self.store.disks()) == 0

    @rule()
    def scrub(self):
        self.run(self.store.scrub_one())

    @invariant()
    def nothing_else_is_there(self):
        there = self.there()
        assert there <= self.sealed
        self.sealed = there  # what the policy took is gone for good

    @invariant()
    def pins_are_kept(self):
        assert self.store.pins == [f"s3://b/{group}/" for group in sorted(self.pinned)]
        for name in self.there():
            assert report_of(self.store, KEYS[name]).pinned == (name[0] in self.pinned)

    @invariant()
    def accounts_are_right(self):
        self.run(asyncio.sleep(0))
        for disk, capacity in zip(self.store.disks(), CAPACITIES, strict=True):
            assert disk.state == "ready"
            assert disk.used_bytes <= capacity
        there = self.there()
        expected = sorted((g, sum(KEYS[n].size for n in there if n[0] == g)) for g in "xy")
        datasets = {report.name: report.bytes for report in self.store.datasets()}
        assert expected == [(g, datasets.get(f"s3://b/{g}/", 0)) for g in "xy"]

    def teardown(self):
        self.partials.clear()
        self.run(self.store.close())
        self.loop.close()
        self.directory.cleanup()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
