from hotshard.core.objects import ObjectInfo
from hotshard.mount import tree
from hotshard.mount.listing import Builder, Kind, Listing


def listed(prefix: str, objects: list[str], prefixes: list[str]) -> Listing:
    builder = Builder(b"", 1)
    infos = [ObjectInfo(uri, "v", 3, 9) for uri in objects]
    tree.add_page(builder, prefix, infos, prefixes)
    return Listing(bytearray(builder.pack(1, 0)), 0)


def names(listing: Listing) -> dict[bytes, Kind]:
    return {e.name: e.kind for e in map(listing.entry, range(len(listing)))}


def test_objects_and_implicit_directories():
    listing = listed("s3://b/p/", ["s3://b/p/x", "s3://b/p/ü ✓"], ["s3://b/p/d/"])
    assert names(listing) == {b"x": Kind.FILE, "ü ✓".encode(): Kind.FILE, b"d": Kind.DIRECTORY}
    assert listing.hidden == 0


def test_the_marker_of_the_directory_itself_is_no_entry():
    listing = listed("s3://b/p/", ["s3://b/p/"], [])
    assert len(listing) == 0
    assert listing.hidden == 0


def test_object_and_prefix_of_one_name():
    listing = listed("s3://b/", ["s3://b/a", "s3://b/a-b"], ["s3://b/a/"])
    assert names(listing) == {b"a": Kind.DIRECTORY, b"a-b": Kind.FILE}
    assert listing.hidden == 1


def test_what_no_path_can_name_is_counted():
    long = "n" * 256
    objects = ["s3://b/.", "s3://b/..", f"s3://b/{long}", "s3://b/" + "n" * 255]
    listing = listed("s3://b/", objects, ["s3://b//", "s3://b/../"])
    assert names(listing) == {b"n" * 255: Kind.FILE}
    assert listing.hidden == 5


def test_keys_in_s3_order_become_names_in_order():
    """In key order `a-b` comes before `a/`; as names it is the other way round."""
    listing = listed("s3://b/", ["s3://b/a-b", "s3://b/a.c"], ["s3://b/a/"])
    assert [listing.name(i) for i in range(3)] == [b"a", b"a-b", b"a.c"]
    assert listing.find(b"a") == 0


def test_a_single_name():
    info = ObjectInfo("s3://b/x", "v", 3, 9)
    one = Listing(bytearray(tree.single(b"d/", 5, b"x", info).pack(1, 0)), 0)
    assert one.entry(0)[1:] == (Kind.FILE, b"x", 3, 9, "v")
    two = Listing(bytearray(tree.single(b"d/", 5, b"x", None).pack(1, 0)), 0)
    assert two.entry(0).kind is Kind.DIRECTORY


def test_uris_keep_the_key_byte_for_byte():
    assert tree.uri_of("s3://b/p/", "a b/ü".encode()) == "s3://b/p/a b/ü"
