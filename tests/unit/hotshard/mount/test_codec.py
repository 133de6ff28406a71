"""Real requests byte by byte, replies against the kernel's layout, and a fuzzer."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotshard.mount import abi, codec
from hotshard.mount.abi import Op
from hotshard.mount.codec import BadRequest, Forget

# LOOKUP of "big" in the root, as Linux 6.18 sent it.
LOOKUP = bytes.fromhex(
    "2c000000"  # length 44
    "01000000"  # opcode 1, LOOKUP
    "0400000000000000"  # unique 4
    "0100000000000000"  # node 1, the root
    "00000000 00000000"  # uid, gid
    "39300000"  # pid 12345
    "0000 0000"  # no extensions; padding
    "62696700"  # "big" and its end
)  # fmt: skip

READ = bytes.fromhex(
    "50000000"  # length 80
    "0f000000"  # opcode 15, READ
    "0600000000000000"  # unique 6
    "efcdab8967452301"  # node
    "e8030000 e8030000"  # uid, gid 1000
    "01000000"  # pid 1
    "0000 0000"
    "0a00000000000000"  # fh 10
    "0000100000000000"  # offset 1 MiB
    "00000200"  # size 128 KiB
    "00000000"  # read_flags
    "0000000000000000"  # lock_owner
    "00800000"  # flags of the open
    "00000000"  # padding
)  # fmt: skip

INIT = bytes.fromhex(
    "68000000"  # length 104
    "1a000000"  # opcode 26, INIT
    "0200000000000000"  # unique 2
    "0000000000000000"  # no node
    "00000000 00000000 00000000"
    "0000 0000"
    "07000000 2d000000"  # 7.45
    "00000200"  # max_readahead 128 KiB
    "fbffff73"  # flags; bit 30 says that flags2 follows
    "a1020000"  # flags2: passthrough (5), resend (7), over io_uring (9)
) + bytes(44)  # fmt: skip

BATCH_FORGET = bytes.fromhex(
    "50000000"  # length 80
    "2a000000"  # opcode 42
    "0800000000000000"
    "0000000000000000"
    "00000000 00000000 00000000"
    "0000 0000"
    "02000000 00000000"  # two of them
    "0500000000000000 0100000000000000"  # node 5, once
    "0600000000000000 0300000000000000"  # node 6, three times
)  # fmt: skip


def request(opcode: int, body: bytes, *, node: int = 1, unique: int = 2) -> bytes:
    return abi.IN_HEADER.pack(40 + len(body), opcode, unique, node, 0, 0, 1, 0, 0) + body


def test_a_lookup():
    parsed = codec.parse(LOOKUP)
    assert parsed == codec.Request(Op.LOOKUP, 4, 1, 0, 0, 12345, b"big")
    assert parsed.name == "lookup"


def test_a_read():
    parsed = codec.parse(READ)
    assert parsed.node == 0x0123456789ABCDEF
    assert parsed.body == codec.ReadIn(fh=10, offset=1 << 20, size=128 << 10)


def test_an_init_has_both_words_of_flags():
    parsed = codec.parse(INIT)
    assert parsed.body.minor == 45
    assert parsed.body.flags & abi.Init.PASSTHROUGH
    assert parsed.body.flags & abi.Init.HAS_RESEND
    assert parsed.body.max_readahead == 128 << 10


def test_an_old_init_without_flags2():
    body = struct.pack("<IIII", 7, 31, 65536, 0xFF)
    assert codec.parse(request(Op.INIT, body)).body == codec.InitIn(7, 31, 65536, 0xFF)


def test_a_batch_of_forgets():
    assert codec.parse(BATCH_FORGET).body == [Forget(5, 1), Forget(6, 3)]


def test_extensions_are_no_part_of_the_arguments():
    raw = abi.IN_HEADER.pack(40 + 4 + 8, Op.LOOKUP, 2, 1, 0, 0, 1, 1, 0) + b"abc\0" + b"EXTENDED"
    assert codec.parse(raw).body == b"abc"


def test_getxattr_and_interrupt():
    raw = request(Op.GETXATTR, struct.pack("<II", 64, 0) + b"user.x\0")
    assert codec.parse(raw).body == codec.GetxattrIn(64, b"user.x")
    raw = request(Op.INTERRUPT, struct.pack("<Q", 77))
    assert codec.parse(raw).body == codec.InterruptIn(77)


def test_an_opcode_from_the_future_is_a_request():
    parsed = codec.parse(request(999, b"whatever"))
    assert parsed.body is None
    assert parsed.name == "unknown"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"short",
        LOOKUP[:-1],
        LOOKUP + b"\0",
        request(Op.LOOKUP, b""),
        request(Op.LOOKUP, b"\0"),
        request(Op.LOOKUP, b"no end"),
        request(Op.READ, bytes(39)),
        request(Op.BATCH_FORGET, struct.pack("<II", 0xFFFFFFFF, 0)),
    ],
)
def test_what_is_no_request(raw):
    with pytest.raises(BadRequest):
        codec.parse(raw)


def test_a_bad_request_names_its_unique_when_it_has_one():
    with pytest.raises(BadRequest) as caught:
        codec.parse(request(Op.LOOKUP, b"x" * 10, unique=99))
    assert caught.value.unique == 99


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(raw):
    with_header = abi.IN_HEADER.pack(40 + len(raw), 1 + len(raw) % 53, 2, 1, 0, 0, 1, 0, 0) + raw
    for candidate in (raw, with_header):
        try:
            parsed = codec.parse(candidate)
        except BadRequest:
            continue
        assert isinstance(parsed, codec.Request)


@given(st.integers(0, 60), st.binary(max_size=200), st.integers(0, 65535))
def test_any_opcode_and_any_extension_length(opcode, body, extensions):
    raw = abi.IN_HEADER.pack(40 + len(body), opcode, 2, 1, 0, 0, 1, extensions, 0) + body
    with contextlib.suppress(BadRequest):
        assert codec.parse(raw).unique == 2


def test_every_opcode_is_in_the_table():
    assert set(codec.OPCODES) == set(Op)
    assert {codec.OPCODES[o].name for o in codec.SILENT} == {
        "forget", "batch_forget", "interrupt", "notify_reply",
    }  # fmt: skip


def test_sizes_are_the_kernels():
    sizes = {
        abi.IN_HEADER: 40, abi.OUT_HEADER: 16, abi.ATTR: 88, abi.ENTRY_OUT: 128, abi.ATTR_OUT: 104,
        abi.OPEN_OUT: 16, abi.STATFS_OUT: 80, abi.INIT_OUT: 64, abi.DIRENT: 24, abi.BACKING_MAP: 16,
    }  # fmt: skip
    assert {layout.size: size for layout, size in sizes.items()} == {s: s for s in sizes.values()}


ATTR = codec.Attr(ino=7, size=1000, mtime_ns=1_500_000_001, mode=0o100444, uid=1, gid=2)


def test_an_entry():
    out = codec.entry_out(7, ATTR, 1.5, 3600)
    node, generation, entry, attr, entry_nanos, attr_nanos = struct.unpack_from("<QQQQII", out)
    assert (node, generation, entry, attr, entry_nanos, attr_nanos) == (
        7,
        0,
        1,
        3600,
        500_000_000,
        0,
    )
    fields = abi.ATTR.unpack_from(out, 40)
    assert fields[:9] == (7, 1000, 2, 1, 1, 1, 500_000_001, 500_000_001, 500_000_001)
    assert fields[9:] == (0o100444, 1, 1, 2, 0, 4096, 0)


def test_attributes():
    out = codec.attr_out(ATTR, 2.25)
    assert struct.unpack_from("<QI", out) == (2, 250_000_000)
    assert out[16:] == codec.entry_out(7, ATTR, 0, 0)[40:]


def test_a_name_that_is_not_there():
    out = codec.no_entry_out(5)
    assert len(out) == 128
    assert abi.ENTRY_OUT.unpack(out)[:3] == (0, 0, 5)


def test_directory_entries_are_padded_to_eight():
    for size in range(1, 20):
        out = codec.dirent(3, 4, 8, b"n" * size)
        assert len(out) % 8 == 0
        assert abi.DIRENT.unpack_from(out) == (3, 4, size, 8)
        assert out[24 : 24 + size] == b"n" * size


def test_replies_and_errors():
    assert (
        codec.reply_bytes(9, b"abc") == bytes.fromhex("13000000 00000000 0900000000000000") + b"abc"
    )
    assert codec.error_bytes(9, 5) == bytes.fromhex("10000000 fbffffff 0900000000000000")
    assert codec.notify_resend_bytes() == bytes.fromhex("10000000 07000000 0000000000000000")
    assert codec.notify_forget_name_bytes(5, b"ab") == bytes.fromhex(
        "23000000 03000000 0000000000000000"  # length, code, unique 0: nobody asked
        "0500000000000000 02000000 00000000"  # directory, bytes of the name, flags
        "616200"
    )


def test_extended_attributes_fit_or_do_not():
    assert codec.xattr_out(b"value", 0) == struct.pack("<I4x", 5)
    assert codec.xattr_out(b"value", 5) == b"value"
    assert codec.xattr_out(b"value", 4) is None


def test_statfs_is_full():
    out = codec.statfs_out(size=8193, files=3, name_bytes_max=255)
    assert abi.STATFS_OUT.unpack(out) == (3, 0, 0, 3, 0, 4096, 255, 4096, 0)
