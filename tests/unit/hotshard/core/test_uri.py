import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.core.errors import InvalidRequest
from hotshard.core.uri import Address, parse, under


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("s3://bucket/key", Address("s3", "bucket", "key")),
        ("s3://bucket/", Address("s3", "bucket", "")),
        ("s3://bucket", Address("s3", "bucket", "")),
        ("s3://bucket//a//b/../c", Address("s3", "bucket", "/a//b/../c")),
        ("s3://b-1.x/ä b+%20?#é", Address("s3", "b-1.x", "ä b+%20?#é")),
        ("file:///a/b", Address("file", "", "/a/b")),
        ("file:////a//b/", Address("file", "", "/a/b/")),
    ],
)
def test_parse(uri, address):
    assert parse(uri) == address


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://x/y", "is not an address"),
        ("bucket/key", "is not an address"),
        ("", "is not an address"),
        ("s3:///key", "no valid bucket"),
        ("s3://a b/key", "no valid bucket"),
        ("s3://bucket/a\0b", "NUL"),
        ("s3://bucket/" + "k" * 1025, "longer than 1024"),
        ("s3://bucket/" + "é" * 513, "longer than 1024"),
        ("file://relative", "absolute"),
        ("file:///a/../etc", "'..'"),
        ("file:///a/./b", "'..'"),
        ("file:///" + "x" * 5000, "longer than 4096"),
        ("s3://bucket/\ud800", "unicode"),
    ],
)
def test_what_is_not_an_address_is_refused_with_a_reason(uri, why):
    with pytest.raises(InvalidRequest, match=why):
        parse(uri)


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(text):
    try:
        address = parse(text)
    except InvalidRequest:
        return
    assert parse(address.uri) == address


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=200))
def test_an_s3_key_is_kept_byte_for_byte(key):
    assert parse(f"s3://bucket/{key}").key == key


def test_a_key_of_1024_bytes_is_the_longest():
    assert parse("s3://bucket/" + "k" * 1024).key == "k" * 1024


def test_under():
    assert under("s3://b/a/x", "s3://b/a/")
    assert under("s3://b/a", "s3://b/a")
    assert not under("s3://b/ab", "s3://b/a")
    assert not under("s3://b/ab/x", "s3://b/a/")
