"""How what does not change gets from one generation into the next without being copied.

snapshot   a btrfs subvolume's snapshot: the whole tree in one step, whatever its
           size; single files as by reflink
reflink    FICLONE: a new file that shares the old one's blocks (btrfs, XFS,
           overlays over them); APFS has the same as clonefile
hardlink   the same file under a second name; right because files of a
           generation are never changed in place
copy       new bytes; right everywhere

The store probes what its file system can do.  A single file that cannot be
cloned (too many links, another file system) falls to the next way down.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys

from ..errors import StoreStateError, UnsafePathError
from . import btrfs
from .durable import write_all

#: best first; each file system that can do one can do those behind it
STRATEGIES = ("snapshot", "reflink", "hardlink", "copy")
AUTO = "auto"
#: those whose files share blocks with the old ones and can be changed by themselves
CLONING = ("snapshot", "reflink")

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_CANNOT = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.ENOTTY,
        errno.EINVAL,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EPERM,
        errno.EMLINK,
        errno.ETXTBSY,
    }
)


def probe(dir_fd: int) -> str:
    """The best strategy of the file system behind `dir_fd`, found by trying."""
    stem = f".probe.{secrets.token_hex(6)}"
    names = (f"{stem}.a.tmp", f"{stem}.b.tmp", f"{stem}.c.tmp")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    old = os.open(names[0], flags, 0o600, dir_fd=dir_fd)
    try:
        write_all(old, b"\0" * 4096)
        clone = _reflinked(old, dir_fd, names[1])
        if clone is not None:
            os.close(clone)
            return "snapshot" if _has_subvolumes(dir_fd, names[2]) else "reflink"
        if try_link(dir_fd, names[0], dir_fd, names[2]):
            return "hardlink"
        return "copy"
    finally:
        os.close(old)
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=dir_fd)


def choose(wanted: str, dir_fd: int, *, base: int | None = None) -> str:
    """`wanted` itself, or for "auto" what `probe` finds.

    Nothing is tried where `base`, the root of the tree to begin with, is a subvolume: to make
    and remove one costs 200 KiB of records, and the next fsync becomes a commit of everything.
    Raises StoreStateError when a wanted strategy does not work here.
    """
    if wanted == "copy":
        return wanted
    if base is not None and btrfs.describe(base) is not None:
        return STRATEGIES[0] if wanted == AUTO else wanted
    found = probe(dir_fd)
    if wanted == AUTO:
        return found
    if STRATEGIES.index(wanted) >= STRATEGIES.index(found):
        return wanted
    raise StoreStateError(
        f"this file system cannot do {wanted}",
        expected=wanted,
        found=found,
        hint="Leave the strategy to bsipatch, or choose the one found.",
    )


def start_tree(
    strategy: str, parent: int, name: str, *, base_dir: int | None = None, base: str = ""
) -> bool:
    """Makes the directory `name` that a new tree goes into.

    Where `strategy` is "snapshot" it is a subvolume, so that later trees can be
    snapshots of it; and when `base` (reached from `base_dir`) is one too, it
    begins as that one's snapshot and True is returned: what does not change is
    there already.  Otherwise it is empty.  Raises OSError.
    """
    if strategy == "snapshot":
        if base_dir is not None:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            old = os.open(base, flags, dir_fd=base_dir)
            try:
                if btrfs.snapshot(old, parent, name):
                    return True
            finally:
                os.close(old)
        if btrfs.create(parent, name):
            os.chmod(name, 0o700, dir_fd=parent)
            return False
    os.mkdir(name, 0o700, dir_fd=parent)
    return False


def place(
    strategy: str, old_dir: int, old_name: str, new_dir: int, new_name: str, *, private: bool
) -> str:
    """Brings a regular file into a generation that is being built; returns how.

    `private` asks for a file of its own (its mode is about to change), so no
    hard link is made.  Mode, times and extended attributes come along.
    Raises OSError.
    """
    if strategy == "hardlink" and not private and try_link(old_dir, old_name, new_dir, new_name):
        return "hardlink"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    old = os.open(old_name, flags, dir_fd=old_dir)
    try:
        mode = os.fstat(old).st_mode
        if not stat.S_ISREG(mode):  # it was one when it was looked at
            raise UnsafePathError("is no longer a regular file", file=old_name)
        mode &= 0o777
        found = _reflinked(old, new_dir, new_name, mode) if strategy in CLONING else None
        create = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        new = os.open(new_name, create, 0o600, dir_fd=new_dir) if found is None else found
        try:
            if found is None:
                copy_bytes(old, new)
            copy_metadata(old, new)
        finally:
            os.close(new)
    finally:
        os.close(old)
    return "copy" if found is None else "reflink"


def copy_bytes(old: int, new: int) -> None:
    """Copies all of `old` to the (empty) `new`, inside the kernel where it can."""
    with contextlib.suppress(OSError):
        fast = getattr(os, "copy_file_range", None)
        while fast is not None and fast(old, new, _CHUNK * 64):
            pass
    # what is left, or everything: the offset of both stands where the fast way ended
    while data := os.read(old, _CHUNK):
        write_all(new, data)


def copy_metadata(old: int, new: int) -> None:
    """Owner (where we may), mode, times and extended attributes."""
    status = os.fstat(old)
    made = keep_owner(new, status)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            for name in os.listxattr(old):
                if name.startswith("user."):
                    os.setxattr(new, name, os.getxattr(old, name))
    if made is None or (made.st_mode ^ status.st_mode) & 0o7777:
        os.fchmod(new, status.st_mode & 0o7777)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))


def keep_owner(fd: int, like: os.stat_result) -> os.stat_result | None:
    """Gives `fd` the owner of `like` when we are allowed to; None when its mode may be another now.

    Otherwise what the file was before, which it still is.
    """
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) == (like.st_uid, like.st_gid):
        return mine
    with contextlib.suppress(PermissionError):
        os.fchown(fd, like.st_uid, like.st_gid)
    return None


def try_link(old_dir: int, old_name: str, new_dir: int, new_name: str) -> bool:
    """Gives a file a second name; False where there can be none. Raises OSError."""
    try:
        os.link(old_name, new_name, src_dir_fd=old_dir, dst_dir_fd=new_dir, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def _has_subvolumes(dir_fd: int, name: str) -> bool:
    """Whether subvolumes can be made and removed here, by us."""
    if not btrfs.create(dir_fd, name):
        return False
    if not btrfs.delete(dir_fd, name):
        os.rmdir(name, dir_fd=dir_fd)
    return True


def _reflinked(old: int, new_dir: int, new_name: str, mode: int = 0o600) -> int | None:
    """A new file that is a clone of `old`, open; None, and nothing made, where that cannot be.

    It has the mode as far as the process's mask lets it. Raises OSError.
    """
    if sys.platform == "darwin":
        if not _try_clonefile(old, new_dir, new_name):
            return None
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(new_name, flags, dir_fd=new_dir)
    import fcntl

    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    new = os.open(new_name, flags, mode, dir_fd=new_dir)
    try:
        fcntl.ioctl(new, _FICLONE, old)
    except OSError as error:
        os.close(new)
        os.unlink(new_name, dir_fd=new_dir)
        if error.errno in _CANNOT:
            return None
        raise
    return new


def _try_clonefile(old: int, new_dir: int, new_name: str) -> bool:
    """APFS; written from its manual, and run on no Mac yet (docs/store.md says so)."""
    libc = ctypes.CDLL(None, use_errno=True)
    clone = getattr(libc, "fclonefileat", None)
    if clone is None:
        return False
    name = ctypes.c_char_p(os.fsencode(new_name))
    if clone(ctypes.c_int(old), ctypes.c_int(new_dir), name, ctypes.c_uint32(0)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), new_name)
