"""The inode table against a plain model, and the cases a model does not reach."""

from hypothesis import given
from hypothesis import strategies as st

from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import Builder, Entry, Kind, Listing

FILE = Kind.FILE


def listing(serial: int, names: dict[bytes, str], *, hashed=None) -> Listing:
    builder = Builder(b"d/", 5)
    for name, version in names.items():
        builder.add(name, FILE, 10, 1, version)
    packed = builder.pack(serial, 0, hashed) if hashed else builder.pack(serial, 0)
    return Listing(bytearray(packed), 0)


def table() -> tuple[InodeTable, list[int]]:
    released: list[int] = []
    return InodeTable(lambda one: released.append(one.serial)), released


def entry(inodes: InodeTable, node: int) -> Entry:
    found = inodes.entry(node)
    assert found is not None
    return found


def refer(inodes: InodeTable, one: Listing, name: bytes) -> int:
    index = one.find(name)
    return inodes.tell(one, index, one.entry(index).node, one.lookups(index))


def test_told_and_forgotten():
    inodes, released = table()
    one = listing(1, {b"a": "v"})
    inodes.install(one)
    inodes.make_current(one, None)
    node = refer(inodes, one, b"a")
    assert refer(inodes, one, b"a") == node
    assert inodes.path(node) == b"d/a"
    assert inodes.place(node) == (5, b"a")
    assert not inodes.forget(node, 1)
    assert inodes.forget(node, 1)
    assert node not in inodes
    assert inodes.entry(node) is None
    assert not released
    inodes.retire(one)
    assert released == [1]


def test_the_root_is_always_there():
    inodes, _ = table()
    assert 1 in inodes
    assert inodes.path(1) == b""
    assert entry(inodes, 1).kind is Kind.DIRECTORY
    assert not inodes.forget(1, 1)


def test_a_new_listing_takes_over_what_has_not_changed():
    inodes, released = table()
    old = listing(1, {b"same": "v", b"changed": "v1", b"gone": "v"})
    inodes.install(old)
    inodes.make_current(old, None)
    nodes = {name: refer(inodes, old, name) for name in (b"same", b"changed", b"gone")}
    new = listing(2, {b"same": "v", b"changed": "v2"})
    inodes.install(new)
    inodes.make_current(new, old)
    assert refer(inodes, new, b"same") == nodes[b"same"]
    assert refer(inodes, new, b"changed") != nodes[b"changed"]
    assert entry(inodes, nodes[b"changed"]).version == "v1"
    assert entry(inodes, nodes[b"gone"]).version == "v"
    assert not released
    inodes.forget(nodes[b"changed"], 1)
    inodes.forget(nodes[b"gone"], 1)
    assert released == [1]
    assert not inodes.forget(nodes[b"same"], 1)
    assert inodes.forget(nodes[b"same"], 1)


def test_two_identities_that_want_one_number():
    inodes, _ = table()
    one = listing(1, {b"a": "v", b"b": "v", b"c": "v"}, hashed=lambda _: 100)
    inodes.install(one)
    inodes.make_current(one, None)
    nodes = [refer(inodes, one, name) for name in (b"a", b"b", b"c")]
    assert nodes == [100, 101, 102]
    assert [inodes.path(n) for n in nodes] == [b"d/a", b"d/b", b"d/c"]
    again = listing(2, {b"a": "v", b"b": "v", b"c": "v"}, hashed=lambda _: 100)
    inodes.install(again)
    inodes.make_current(again, one)
    assert [refer(inodes, again, name) for name in (b"c", b"b", b"a")] == [102, 101, 100]


def test_an_open_directory_keeps_its_listing():
    inodes, released = table()
    one = listing(1, {b"a": "v"})
    inodes.install(one)
    inodes.make_current(one, None)
    inodes.pin(one)
    inodes.retire(one)
    assert not released
    inodes.unpin(one)
    assert released == [1]


def test_another_process_goes_on_with_the_same_nodes():
    inodes, _ = table()
    old = listing(1, {b"a": "v", b"b": "v"})
    new = listing(2, {b"a": "v"})
    inodes.install(old)
    inodes.make_current(old, None)
    nodes = [refer(inodes, old, b"a"), refer(inodes, old, b"b")]
    inodes.install(new)
    inodes.make_current(new, old)

    restored, released = table()
    restored.restore([Listing(old.buffer, 0), Listing(new.buffer, 0)])
    restored.settle_all()
    assert [restored.path(n) for n in nodes] == [b"d/a", b"d/b"]
    assert restored.current()[5].serial == 2
    assert restored.forget(nodes[0], 1)
    assert restored.forget(nodes[1], 1)
    assert released == [1]


def test_killed_while_a_new_listing_took_over():
    """Both listings have the count; the newer is believed."""
    inodes, _ = table()
    old = listing(1, {b"a": "v"})
    inodes.install(old)
    inodes.make_current(old, None)
    node = refer(inodes, old, b"a")
    new = listing(2, {b"a": "v"})
    new.set_lookups(0, 1)

    restored, released = table()
    restored.restore([Listing(old.buffer, 0), Listing(new.buffer, 0)])
    restored.make_current(new, restored.current()[5])
    assert restored.forget(node, 1)
    assert node not in restored
    assert released == [1]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(0, 5)),
        st.tuples(st.just("forget"), st.integers(0, 5)),
        st.tuples(st.just("relist"), st.lists(st.integers(0, 2), min_size=6, max_size=6)),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=60,
)


@given(STEPS)
def test_against_a_model(steps):
    names = [b"n%d" % i for i in range(6)]
    inodes, _released = table()
    versions = [0] * 6
    serial = 1
    now = listing(serial, {n: str(v) for n, v in zip(names, versions, strict=True)})
    inodes.install(now)
    inodes.make_current(now, None)
    kept = [now]
    counts: dict[tuple[int, int], int] = {}
    numbers: dict[tuple[int, int], int] = {}
    for step, argument in steps:
        if step == "tell":
            key = (argument, versions[argument])
            node = refer(inodes, now, names[argument])
            assert numbers.setdefault(key, node) == node
            counts[key] = counts.get(key, 0) + 1
        elif step == "forget":
            for key in [k for k in counts if k[0] == argument]:
                assert inodes.forget(numbers[key], counts.pop(key))
        elif step == "relist":
            versions = [v + (a == 0) for v, a in zip(versions, argument, strict=True)]
            serial += 1
            new = listing(serial, {n: str(v) for n, v in zip(names, versions, strict=True)})
            inodes.install(new)
            inodes.make_current(new, now)
            now = new
            kept.append(now)
        else:
            held = {one.serial for one in inodes.kept()}
            inodes, _released = table()
            kept = [Listing(one.buffer, 0) for one in kept if one.serial in held]
            inodes.restore(kept)
            inodes.settle_all()
            now = inodes.current()[5]
        assert len(inodes) == len(counts)
        for key, node in numbers.items():
            if key in counts:
                assert entry(inodes, node).name == names[key[0]]
                assert entry(inodes, node).version == str(key[1])
            else:
                assert inodes.entry(node) is None
