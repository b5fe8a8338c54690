"""btrfs subvolumes: make one, snapshot one, delete one, each by one ioctl on descriptors.

A snapshot costs the same for a page as for a terabyte, which nothing else here
does.  No function follows a link or takes a path: names are single components
of an open directory.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from typing import NamedTuple

_CREATE = 0x5000940E  # BTRFS_IOC_SUBVOL_CREATE
_DESTROY = 0x5000940F  # BTRFS_IOC_SNAP_DESTROY
_SNAPSHOT = 0x50009417  # BTRFS_IOC_SNAP_CREATE_V2
_INFO = 0x81F8943C  # BTRFS_IOC_GET_SUBVOL_INFO, Linux 4.18
_INFO_SIZE = 504
#: in that answer: the generation, the UUID, and the transaction of the last change
_GENERATION, _UUID, _CHANGED = 280, 296, 344
#: struct btrfs_ioctl_vol_args, and its second version with room for flags
_ARGS = struct.Struct("=q4088s")
_ARGS_V2 = struct.Struct("=qQQ32s4040s")
_MAX_NAME = 255
#: the inode number that the root of every subvolume has
_ROOT_INODE = 256

#: what says "not here", and not "this went wrong"
CANNOT = frozenset(
    {
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EPERM,
        errno.EACCES,
        errno.EXDEV,
    }
)


class Subvolume(NamedTuple):
    """What the kernel says of a subvolume, for telling whether anything in it has changed.

    uuid        hex; another one for every subvolume
    generation  the transaction that last wrote its tree, a snapshot of it included
    changed     the transaction of the last change in it: of a byte, a name, a mode, a time;
                no snapshot of it, but also the reading of a file whose access time was renewed
    """

    uuid: str
    generation: int
    changed: int


def describe(fd: int) -> Subvolume | None:
    """The subvolume whose root is open at `fd`; None when it is none, or the kernel is older.

    Raises OSError.
    """
    if not is_root(fd):
        return None
    answer = bytearray(_INFO_SIZE)
    if not _ioctl(fd, _INFO, answer):
        return None
    return Subvolume(
        bytes(answer[_UUID : _UUID + 16]).hex(),
        int.from_bytes(answer[_GENERATION : _GENERATION + 8], "little"),
        int.from_bytes(answer[_CHANGED : _CHANGED + 8], "little"),
    )


def create(parent: int, name: str) -> bool:
    """Makes an empty subvolume; False, and nothing made, where there are none. Raises OSError."""
    return _ioctl(parent, _CREATE, _ARGS.pack(0, _encoded(name)))


def snapshot(old: int, parent: int, name: str) -> bool:
    """Makes the writable snapshot `name` of the subvolume whose root is open at `old`.

    False, and nothing made, when `old` is no subvolume's root, belongs to somebody
    else, or lies on another file system.  Raises OSError.
    """
    if not is_root(old):
        return False
    return _ioctl(parent, _SNAPSHOT, _ARGS_V2.pack(old, 0, 0, b"", _encoded(name)))


def delete(parent: int, name: str) -> bool:
    """Deletes a subvolume and all in it; False where that is not allowed or `name` is none.

    Users may delete their own only on file systems mounted with
    user_subvol_rm_allowed; emptying it and rmdir work everywhere.  Raises OSError.
    """
    try:
        return _ioctl(parent, _DESTROY, _ARGS.pack(0, _encoded(name)))
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR):
            return False  # it holds another subvolume, or is mounted: let the slow way say so
        raise


def is_root(fd: int) -> bool:
    """Whether `fd` may be a subvolume's root, by its inode number; the ioctl itself is sure."""
    return sys.platform == "linux" and os.fstat(fd).st_ino == _ROOT_INODE


def _encoded(name: str) -> bytes:
    data = os.fsencode(name)
    if not data or len(data) > _MAX_NAME or b"/" in data or b"\0" in data:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), name)
    return data


def _ioctl(fd: int, number: int, arguments: bytes | bytearray) -> bool:
    """Whether the kernel did it; its answer, where there is one, is in a bytearray given."""
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        # a bytearray: Python copies immutable arguments, and only up to 1 KiB
        data = arguments if isinstance(arguments, bytearray) else bytearray(arguments)
        fcntl.ioctl(fd, number, data)
    except OSError as error:
        if error.errno in CANNOT:
            return False
        raise
    return True
