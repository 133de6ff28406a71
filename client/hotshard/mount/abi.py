"""The kernel's FUSE interface as data: opcodes, flags and the layout of every structure hotshard uses.

From include/uapi/linux/fuse.h, protocol 7.46 and older; names are the kernel's without their prefix. All
numbers are in the byte order of the machine, and every machine hotshard runs on is little endian. Nothing
here does anything.
"""

from enum import IntEnum
from struct import Struct

MAJOR = 7
MINOR = 46
MINOR_OLDEST = 31  # Linux 5.4; what came before lacks max_pages and kernel-side readdir caching
ROOT = 1
MIN_READ_BUFFER = 8192  # read(2) of /dev/fuse refuses anything smaller
PAGE_BYTES = 4096
UNIQUE_RESEND = 1 << 63  # set by the kernel on a request it sends a second time; replies echo it

IN_HEADER = Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("<IiQ")  # len error unique
ATTR = Struct("<6Q10I")  # ino size blocks a/m/ctime, nsecs, mode nlink uid gid rdev blksize flags
ENTRY_OUT = Struct("<QQQQII6Q10I")  # nodeid generation entry_valid attr_valid nsecs, attr
ATTR_OUT = Struct("<QII6Q10I")  # attr_valid nsec dummy, attr
OPEN_OUT = Struct("<QIi")  # fh open_flags backing_id
STATFS_OUT = Struct("<5Q4I24x")  # blocks bfree bavail files ffree, bsize namelen frsize padding
GETXATTR_OUT = Struct("<I4x")  # size
INIT_IN = Struct("<IIII")  # major minor max_readahead flags
INIT_IN_FLAGS2 = Struct("<I")
INIT_OUT = Struct("<IIIIHHIIHHIIH22x")
U32 = Struct("<I")
U64 = Struct("<Q")
READ_IN = Struct("<QQI")  # fh offset size; what follows is of no use to a read-only file system
DIRENT = Struct("<QQII")  # ino off namelen type
ENTRY_DIRENT = Struct("<QQQQII6Q10IQQII")  # an entry of READDIRPLUS, before its name
FORGET_ONE = Struct("<QQ")  # nodeid nlookup
BACKING_MAP = Struct("<iIQ")  # fd flags padding
NOTIFY_INVAL_ENTRY_OUT = Struct(
    "<QII"
)  # directory, bytes of the name, flags; the name and a NUL follow

IOC_CLONE = 0x8004E500  # FUSE_DEV_IOC_CLONE
IOC_BACKING_OPEN = 0x4010E501
IOC_BACKING_CLOSE = 0x4004E502

NOTIFY_INVAL_ENTRY = 3
NOTIFY_RESEND = 7


class Op(IntEnum):
    """Opcodes."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Init:
    """Capabilities in the INIT exchange; bit 32 and up travel in flags2."""

    ASYNC_READ = 1 << 0
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    INIT_EXT = 1 << 30
    PASSTHROUGH = 1 << 37
    HAS_RESEND = 1 << 39


class Fopen:
    """Flags of an OPEN or OPENDIR reply."""

    DIRECT_IO = 1 << 0
    KEEP_CACHE = 1 << 1
    CACHE_DIR = 1 << 3
    NOFLUSH = 1 << 5
    PASSTHROUGH = 1 << 7
