from hypothesis import given
from hypothesis import strategies as st

from hotshard.mount.listing import Builder, Kind, Listing, identity, node_hash

NAMES = st.binary(min_size=1, max_size=40).filter(lambda n: b"/" not in n and b"\0" not in n)


def packed(names: dict[bytes, tuple[Kind, int, int, str]], path: bytes = b"a/b/") -> Listing:
    builder = Builder(path, 7)
    for name, facts in names.items():
        builder.add(name, *facts)
    return Listing(bytearray(builder.pack(3, 5_000)), 0)


@given(
    st.dictionaries(
        NAMES,
        st.tuples(
            st.sampled_from(Kind), st.integers(0, 1 << 60), st.integers(-(1 << 60), 1 << 62),
            st.text(st.characters(codec="utf-8"), max_size=20),
        ),
    )
)  # fmt: skip
def test_what_goes_in_comes_out_in_order(names):
    listing = packed(names)
    assert len(listing) == len(names)
    got = [listing.entry(i) for i in range(len(listing))]
    assert [e.name for e in got] == sorted(names)
    assert {e.name: (e.kind, e.size, e.mtime_ns, e.version) for e in got} == names
    for i, name in enumerate(sorted(names)):
        assert listing.find(name) == i
        assert listing.name(i) == name
    assert (listing.path, listing.directory, listing.serial) == (b"a/b/", 7, 3)
    assert listing.bytes == sum(facts[1] for facts in names.values())


def test_a_name_that_is_not_there():
    listing = packed({b"b": (Kind.FILE, 1, 1, "v")})
    assert listing.find(b"a") == listing.find(b"c") == listing.find(b"bb") == -1
    assert packed({}).find(b"a") == -1


def test_a_key_that_is_object_and_prefix_is_the_directory():
    builder = Builder(b"", 1)
    builder.add(b"a", Kind.FILE, 5, 1, "v")
    builder.add(b"a", Kind.DIRECTORY, 0, 0, "")
    listing = Listing(bytearray(builder.pack(1, 0)), 0)
    assert len(listing) == 1
    assert listing.entry(0).kind is Kind.DIRECTORY
    assert listing.hidden == 1


def test_counts_and_nodes_change_in_place():
    listing = packed({b"a": (Kind.FILE, 1, 1, "v"), b"b": (Kind.FILE, 2, 2, "w")})
    listing.set_lookups(1, 5)
    listing.set_node(1, 99)
    again = Listing(listing.buffer, 0)
    assert again.lookups(1) == 5
    assert again.lookups(0) == 0
    assert again.entry(1).node == 99
    assert list(again.nodes()) == [(again.entry(0).node, 0), (99, 5)]
    assert not again.current
    listing.set_current(current=True)
    assert again.current


def test_a_node_is_the_hash_of_path_and_version():
    """Golden: these numbers are inode numbers that users have seen; changing them breaks remounts."""
    assert node_hash(identity(b"a/b/", Kind.FILE, b"x", b"v1")) == 0xDDBB76F21A9EC0D5
    assert node_hash(identity(b"a/b/", Kind.DIRECTORY, b"x", b"")) == 0x8FD7E295071539CC
    one = packed({b"x": (Kind.FILE, 1, 1, "v1")}).entry(0).node
    assert one == packed({b"x": (Kind.FILE, 9, 9, "v1")}).entry(0).node
    assert one != packed({b"x": (Kind.FILE, 1, 1, "v2")}).entry(0).node
    assert one != packed({b"x": (Kind.FILE, 1, 1, "v1")}, b"a/c/").entry(0).node
    assert 1 < one < 1 << 63
