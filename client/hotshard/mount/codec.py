"""Bytes of /dev/fuse <-> values. Pure: knows layouts, not what they are for.

`OPCODES` is the one table: for each opcode its name, the size of its fixed argument, and whether the kernel
waits for a reply. `parse` gives a `Request` or raises `BadRequest`, whatever the bytes are. The functions
below it build replies.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from hotshard.mount import abi
from hotshard.mount.abi import Op

FOR_EVER_S = 1e8
OUT_HEADER_BYTES = abi.OUT_HEADER.size
_IN_HEADER_BYTES = abi.IN_HEADER.size
_NAME_BYTES_MAX = 65536  # of an attribute or file name; the kernel's own limits are lower

# What the constructor of a NamedTuple does, without its argument list: half the time, on every request.
_new = tuple.__new__
_unpack_header = abi.IN_HEADER.unpack_from
_pack_out = abi.OUT_HEADER.pack


class BadRequest(Exception):
    """Bytes that are not a request of the protocol; `unique` is 0 when not even that could be read."""

    def __init__(self, message: str, unique: int = 0) -> None:
        super().__init__(message)
        self.unique = unique


class Request(NamedTuple):
    """One request. `body` is what the opcode carries: see the tuples below; None when nothing of use."""

    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    body: Any

    @property
    def name(self) -> str:
        """The opcode in words, for logs and metrics."""
        return name_of(self.opcode)


class InitIn(NamedTuple):
    """INIT: what the kernel offers; `flags` has both words."""

    major: int
    minor: int
    max_readahead: int
    flags: int


class OpenIn(NamedTuple):
    """OPEN, OPENDIR."""

    flags: int


class ReadIn(NamedTuple):
    """READ, READDIR, READDIRPLUS."""

    fh: int
    offset: int
    size: int


class ReleaseIn(NamedTuple):
    """RELEASE, RELEASEDIR."""

    fh: int


class GetxattrIn(NamedTuple):
    """GETXATTR, LISTXATTR (with an empty name). Size 0 asks how large the answer is."""

    size: int
    name: bytes


class Forget(NamedTuple):
    """One line of FORGET or BATCH_FORGET."""

    node: int
    lookups: int


class InterruptIn(NamedTuple):
    """INTERRUPT: the request whose caller got a signal."""

    unique: int


Decode = Callable[[bytes, int, int], Any]


class Opcode(NamedTuple):
    """A line of the table."""

    name: str
    size: int
    """Bytes of the fixed argument; shorter is refused."""
    reply: bool
    decode: Decode | None
    """(request, node, end of the arguments) -> body."""


def _one_name(raw: bytes, start: int, end: int) -> bytes:
    stop = raw.find(b"\0", start, end)
    if stop <= start or stop - start > _NAME_BYTES_MAX:
        raise BadRequest("a name is missing or has no end")
    return raw[start:stop]


def _lookup(raw: bytes, _node: int, end: int) -> bytes:
    return _one_name(raw, _IN_HEADER_BYTES, end)


def _init(raw: bytes, _node: int, end: int) -> InitIn:
    major, minor, readahead, flags = abi.INIT_IN.unpack_from(raw, _IN_HEADER_BYTES)
    at = _IN_HEADER_BYTES + abi.INIT_IN.size
    if flags & abi.Init.INIT_EXT and end >= at + abi.INIT_IN_FLAGS2.size:
        flags |= abi.INIT_IN_FLAGS2.unpack_from(raw, at)[0] << 32
    return InitIn(major, minor, readahead, flags)


def _u32(raw: bytes, _node: int, _end: int) -> OpenIn:
    return _new(OpenIn, abi.U32.unpack_from(raw, _IN_HEADER_BYTES))


def _read(raw: bytes, _node: int, _end: int) -> ReadIn:
    return _new(ReadIn, abi.READ_IN.unpack_from(raw, _IN_HEADER_BYTES))


def _release(raw: bytes, _node: int, _end: int) -> ReleaseIn:
    return _new(ReleaseIn, abi.U64.unpack_from(raw, _IN_HEADER_BYTES))


def _getxattr(raw: bytes, _node: int, end: int) -> GetxattrIn:
    return GetxattrIn(int.from_bytes(raw[40:44], "little"), _one_name(raw, 48, end))


def _listxattr(raw: bytes, _node: int, _end: int) -> GetxattrIn:
    return GetxattrIn(int.from_bytes(raw[40:44], "little"), b"")


def _interrupt(raw: bytes, _node: int, _end: int) -> InterruptIn:
    return InterruptIn(int.from_bytes(raw[40:48], "little"))


def _forget(raw: bytes, node: int, _end: int) -> list[Forget]:
    return [Forget(node, int.from_bytes(raw[40:48], "little"))]


def _batch_forget(raw: bytes, _node: int, end: int) -> list[Forget]:
    count = int.from_bytes(raw[40:44], "little")
    start = _IN_HEADER_BYTES + 8
    stop = start + count * abi.FORGET_ONE.size
    if stop > end:
        raise BadRequest(f"BATCH_FORGET of {count} entries is cut short")
    return [Forget._make(pair) for pair in abi.FORGET_ONE.iter_unpack(raw[start:stop])]


def _op(name: str, size: int, decode: Decode | None = None, *, reply: bool = True) -> Opcode:
    return Opcode(name, size, reply, decode)


OPCODES: dict[int, Opcode] = {
    Op.LOOKUP: _op("lookup", 0, _lookup),
    Op.FORGET: _op("forget", 8, _forget, reply=False),
    Op.GETATTR: _op("getattr", 16),
    Op.SETATTR: _op("setattr", 88),
    Op.READLINK: _op("readlink", 0),
    Op.SYMLINK: _op("symlink", 0),
    Op.MKNOD: _op("mknod", 16),
    Op.MKDIR: _op("mkdir", 8),
    Op.UNLINK: _op("unlink", 0),
    Op.RMDIR: _op("rmdir", 0),
    Op.RENAME: _op("rename", 8),
    Op.LINK: _op("link", 8),
    Op.OPEN: _op("open", 8, _u32),
    Op.READ: _op("read", 40, _read),
    Op.WRITE: _op("write", 40),
    Op.STATFS: _op("statfs", 0),
    Op.RELEASE: _op("release", 24, _release),
    Op.FSYNC: _op("fsync", 16),
    Op.SETXATTR: _op("setxattr", 8),
    Op.GETXATTR: _op("getxattr", 8, _getxattr),
    Op.LISTXATTR: _op("listxattr", 8, _listxattr),
    Op.REMOVEXATTR: _op("removexattr", 0),
    Op.FLUSH: _op("flush", 24),
    Op.INIT: _op("init", 16, _init),
    Op.OPENDIR: _op("opendir", 8, _u32),
    Op.READDIR: _op("readdir", 40, _read),
    Op.RELEASEDIR: _op("releasedir", 24, _release),
    Op.FSYNCDIR: _op("fsyncdir", 16),
    Op.GETLK: _op("getlk", 48),
    Op.SETLK: _op("setlk", 48),
    Op.SETLKW: _op("setlkw", 48),
    Op.ACCESS: _op("access", 8),
    Op.CREATE: _op("create", 16),
    Op.INTERRUPT: _op("interrupt", 8, _interrupt, reply=False),
    Op.BMAP: _op("bmap", 16),
    Op.DESTROY: _op("destroy", 0),
    Op.IOCTL: _op("ioctl", 32),
    Op.POLL: _op("poll", 24),
    Op.NOTIFY_REPLY: _op("notify_reply", 0, reply=False),
    Op.BATCH_FORGET: _op("batch_forget", 8, _batch_forget, reply=False),
    Op.FALLOCATE: _op("fallocate", 32),
    Op.READDIRPLUS: _op("readdirplus", 40, _read),
    Op.RENAME2: _op("rename2", 16),
    Op.LSEEK: _op("lseek", 24),
    Op.COPY_FILE_RANGE: _op("copy_file_range", 56),
    Op.SETUPMAPPING: _op("setupmapping", 0),
    Op.REMOVEMAPPING: _op("removemapping", 0),
    Op.SYNCFS: _op("syncfs", 0),
    Op.TMPFILE: _op("tmpfile", 16),
    Op.STATX: _op("statx", 24),
    Op.COPY_FILE_RANGE_64: _op("copy_file_range_64", 56),
}


def name_of(opcode: int) -> str:
    """An opcode in words."""
    entry = OPCODES.get(opcode)
    return entry.name if entry else "unknown"


SILENT = frozenset(opcode for opcode, entry in OPCODES.items() if not entry.reply)
"""Opcodes that have no reply."""


def parse(raw: bytes) -> Request:
    """Take one message of the kernel apart.

    Raises:
        BadRequest: too short, longer or shorter than it says, or an argument without its end.
    """
    if len(raw) < _IN_HEADER_BYTES:
        raise BadRequest(f"{len(raw)} bytes are no request")
    length, opcode, unique, node, uid, gid, pid, extensions, _ = _unpack_header(raw)
    end = length - 8 * extensions
    entry = OPCODES.get(opcode)
    body = None
    if entry is not None:
        if length != len(raw) or end < _IN_HEADER_BYTES + entry.size:
            raise BadRequest(f"{entry.name}: {len(raw)} bytes, says {length}", unique)
        if entry.decode is not None:
            try:
                body = entry.decode(raw, node, end)
            except BadRequest as error:
                error.unique = unique
                raise
    return _new(Request, (opcode, unique, node, uid, gid, pid, body))


def reply_bytes(unique: int, payload: bytes = b"") -> bytes:
    """A reply that went well."""
    return _pack_out(OUT_HEADER_BYTES + len(payload), 0, unique) + payload


def error_bytes(unique: int, errno: int) -> bytes:
    """A refusal."""
    return _pack_out(OUT_HEADER_BYTES, -errno, unique)


def notify_resend_bytes() -> bytes:
    """Asks the kernel to send every request again that was read but not answered."""
    return _pack_out(OUT_HEADER_BYTES, abi.NOTIFY_RESEND, 0)


def notify_forget_name_bytes(directory: int, name: bytes) -> bytes:
    """Tells the kernel to ask for a name again before it believes what it knows of it."""
    body = abi.NOTIFY_INVAL_ENTRY_OUT.pack(directory, len(name), 0) + name + b"\0"
    return _pack_out(OUT_HEADER_BYTES + len(body), abi.NOTIFY_INVAL_ENTRY, 0) + body


class Attr(NamedTuple):
    """What stat(2) shows of a file."""

    ino: int
    size: int
    mtime_ns: int
    mode: int
    uid: int
    gid: int
    nlink: int = 1


def _attr_fields(attr: Attr) -> tuple[int, ...]:
    seconds, nanos = divmod(max(0, attr.mtime_ns), 1_000_000_000)
    blocks = -(-attr.size // 512)
    times = (seconds, seconds, seconds, nanos, nanos, nanos)
    tail = (attr.mode, attr.nlink, attr.uid, attr.gid, 0, abi.PAGE_BYTES, 0)
    return (attr.ino, attr.size, blocks, *times, *tail)


def split_s(seconds: float) -> tuple[int, int]:
    """Whole seconds and nanoseconds."""
    whole = int(seconds)
    return whole, int((seconds - whole) * 1e9)


def attr_out(attr: Attr, valid_s: float) -> bytes:
    """Payload of a GETATTR reply."""
    whole, nanos = split_s(valid_s)
    return abi.ATTR_OUT.pack(whole, nanos, 0, *_attr_fields(attr))


def entry_out(node: int, attr: Attr, entry_valid_s: float, attr_valid_s: float) -> bytes:
    """Payload of a LOOKUP reply."""
    entry, entry_nanos = split_s(entry_valid_s)
    valid, valid_nanos = split_s(attr_valid_s)
    return abi.ENTRY_OUT.pack(node, 0, entry, valid, entry_nanos, valid_nanos, *_attr_fields(attr))


def no_entry_out(valid_s: float) -> bytes:
    """Payload of a LOOKUP reply that lets the kernel remember for a while that there is no such name."""
    whole, nanos = split_s(valid_s)
    return abi.ENTRY_OUT.pack(0, 0, whole, 0, nanos, 0, *([0] * 16))


def dirent(ino: int, next_offset: int, kind: int, name: bytes) -> bytes:
    """One name of a READDIR reply, padded to eight bytes."""
    head = abi.DIRENT.pack(ino, next_offset, len(name), kind)
    return head + name + bytes(-len(name) % 8)


def open_out(fh: int, flags: int, backing_id: int = 0) -> bytes:
    """Payload of an OPEN or OPENDIR reply."""
    return abi.OPEN_OUT.pack(fh, flags, backing_id)


def statfs_out(*, size: int, files: int, name_bytes_max: int) -> bytes:
    """Payload of a STATFS reply: a full, read-only file system of that size."""
    page = abi.PAGE_BYTES
    return abi.STATFS_OUT.pack(-(-size // page), 0, 0, files, 0, page, name_bytes_max, page, 0)


def xattr_out(value: bytes, size: int) -> bytes | None:
    """Payload of a GETXATTR or LISTXATTR reply; None: it does not fit in `size` (ERANGE)."""
    if size == 0:
        return abi.GETXATTR_OUT.pack(len(value))
    return value if len(value) <= size else None
