"""Values as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.config.units import (
    SIZE_BYTES_MAX,
    Amount,
    HostPort,
    format_size,
    parse_amount,
    parse_host_port,
    parse_mode,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (4096, 4096),
        ("8192", 8192),
        ("512MiB", 512 << 20),
        ("10GiB", 10 << 30),
        ("10 GiB", 10 << 30),
        ("10Gi", 10 << 30),
        ("10gib", 10 << 30),
        ("100GB", 100 * 10**9),
        ("100G", 100 * 10**9),
        ("1.5TiB", 3 << 39),
        (" 7B ", 7),
    ],
)
def test_sizes_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        "GiB",
        "-1",
        -2,
        1.0,
        True,
        None,
        "1.0.0GiB",
        "1e9",
        "0.1KiB",
        "10%",
        "٣",
        "10XB",
        1 << 63,
        "9999PiB",
    ],
)
def test_what_is_no_size_is_refused_with_examples(value):
    with pytest.raises(ValueError, match="such as 512MiB"):
        parse_size(value)


@given(st.integers(0, SIZE_BYTES_MAX))
def test_format_size_is_the_exact_inverse(size):
    assert parse_size(format_size(size)) == size
    assert parse_size(size) == size


@given(st.text(max_size=12))
def test_any_text_is_a_size_in_range_or_refused(text):
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert 0 <= size <= SIZE_BYTES_MAX


@given(st.integers(0, 100_000_000))
def test_percentages_survive_being_written(millionths):
    amount = parse_amount(f"{millionths / 1_000_000:.6f}%")
    again = parse_amount(str(amount))
    assert abs(again.of(10**9) - amount.of(10**9)) <= 1


def test_amounts():
    assert parse_amount("80%").of(1000) == 800
    assert parse_amount("100 %").of(1000) == 1000
    assert parse_amount("2KiB").of(1000) == 2048
    assert parse_amount(Amount(share=0.5)) == Amount(share=0.5)
    assert str(parse_amount("12.5%")) == "12.5%"
    assert parse_amount("0%").nothing
    assert parse_amount(0).nothing
    for wrong in ("101%", "-1%", "%", "80 percent", None, True, 0.8):
        with pytest.raises(ValueError, match="80%"):
            parse_amount(wrong)


@pytest.mark.parametrize(
    "text", ["127.0.0.1:7070", "[::1]:7070", "[::]:0", "localhost:1", "node-1.example.com:65535"]
)
def test_addresses_survive_a_round_trip(text):
    assert str(parse_host_port(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "7070",
        ":7070",
        "host:",
        "host:x",
        "host:65536",
        "::1:7070",
        "a b:1",
        7171,
        None,
        "h:٣",
        "[]:1",
    ],
)
def test_what_is_no_address_is_refused(value):
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_host_port(value)


def test_collisions():
    loopback = HostPort("127.0.0.1", 7070)
    assert loopback.collides(HostPort("127.0.0.1", 7070))
    assert loopback.collides(HostPort("0.0.0.0", 7070))
    assert HostPort("::", 7070).collides(loopback)
    assert not loopback.collides(HostPort("127.0.0.1", 7071))
    assert not loopback.collides(HostPort("127.0.0.2", 7070))
    assert not HostPort("127.0.0.1", 0).collides(HostPort("127.0.0.1", 0))


def test_modes():
    assert parse_mode("0666") == 0o666
    assert parse_mode("660") == 0o660
    for wrong in (438, "0o666", "0888", "66", "", None):
        with pytest.raises(ValueError, match="0666"):
            parse_mode(wrong)
