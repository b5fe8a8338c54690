"""The kernel's part: namespaces, loop devices, file systems, mounts, without a process for each.

Everything here is private to the process that calls it: mounts live in a mount
namespace of its own and loop devices detach by themselves, so that nothing is
left when that process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MS_REC, _MS_PRIVATE, _CLONE_NEWNS, _MNT_DETACH = 16384, 1 << 18, 0x00020000, 2
_LOOP_CTL_GET_FREE, _LOOP_CONFIGURE = 0x4C82, 0x4C0A
_AUTOCLEAR, _DIRECT_IO = 4, 16
_BLKFLSBUF = 0x1261
_CONFIG_SIZE, _FLAGS_AT = 304, 8 + 52  # struct loop_config; lo_flags inside it
MIB = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Kind:
    """One file system: how large (bytes), how made, how mounted."""

    name: str
    size: int
    make: tuple[str, ...]
    options: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "ext4",
            24 * MIB,
            (
                *("mkfs.ext4", "-q", "-F", "-b", "4096", "-N", "1024", "-J", "size=4"),
                *("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"),
            ),
        ),
        Kind(
            "btrfs",
            128 * MIB,
            ("mkfs.btrfs", "-q", "-f", "-K", "-m", "single", "-d", "single"),
            "nodiscard",
        ),
        # nouuid: copies of one file system are mounted side by side
        Kind("xfs", 300 * MIB, ("mkfs.xfs", "-q", "-f", "-K", "-m", "reflink=1"), "nouuid"),
    )
}


class CannotRunError(Exception):
    """This host cannot replay power cuts; the message says why."""


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def private_mounts() -> None:
    """From here on this process and its children mount for themselves alone."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)


def die_with_parent() -> None:
    """SIGKILL for this process as soon as its parent is gone."""
    _libc.prctl(1, 9)


def attach(image: str) -> tuple[int, str]:
    """A loop device over `image`; it stays as long as the descriptor or a mount of it."""
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            for _ in range(200):
                device = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
                fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
                config = bytearray(_CONFIG_SIZE)
                struct.pack_into("<I", config, 0, backing)
                struct.pack_into("<I", config, _FLAGS_AT, _AUTOCLEAR | _DIRECT_IO)
                try:
                    fcntl.ioctl(fd, _LOOP_CONFIGURE, bytes(config))
                except OSError as error:
                    os.close(fd)
                    if error.errno != errno.EBUSY:
                        raise
                    time.sleep(0.01)  # another process took it first
                    continue
                # a descriptor for writing would stand in the way of the mount on some kernels
                keep = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
                os.close(fd)
                return keep, device
        finally:
            os.close(control)
    finally:
        os.close(backing)
    raise CannotRunError("no free loop device")


def forget(device_fd: int) -> None:
    """Drops what the kernel has cached of a loop device whose file was rewritten."""
    fcntl.ioctl(device_fd, _BLKFLSBUF, 0)


def mount(device: str, place: Path, kind: Kind) -> None:
    """mount(2). Raises OSError.

    EEXIST passes: btrfs answers it when two copies of one file system are mounted at one moment.
    """
    options = kind.options.encode() or None
    arguments = (device.encode(), bytes(place), kind.name.encode(), ctypes.c_ulong(0), options)
    for wait in (0.01, 0.05, 0.2):
        try:
            _call("mount", *arguments)
            return
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
        time.sleep(wait)
    _call("mount", *arguments)


def umount(place: Path, *, lazily: bool = False) -> None:
    """umount(2); EBUSY here means that what was tested left a descriptor open. Raises OSError."""
    for wait in (0.005, 0.02, 0.1, 0.4):
        try:
            _call("umount2", bytes(place), _MNT_DETACH if lazily else 0)
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(wait)
    _call("umount2", bytes(place), _MNT_DETACH if lazily else 0)


@contextlib.contextmanager
def mounted(device: str, place: Path, kind: Kind) -> Iterator[Path]:
    """A file system in use; unmounted in the end, lazily when it is in the way of an error."""
    mount(device, place, kind)
    try:
        yield place
    except BaseException:
        with contextlib.suppress(OSError):
            umount(place, lazily=True)
        raise
    umount(place)


def sync_file_system(fd: int) -> None:
    """syncfs(2). Raises OSError."""
    _call("syncfs", fd)


def make_file_system(kind: Kind, image: Path) -> None:
    """A new, empty file system in a sparse file."""
    with image.open("wb") as file:
        file.truncate(kind.size)
    subprocess.run([*kind.make, str(image)], check=True, capture_output=True)


@contextlib.contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder whose files lie in memory, off every file system under test."""
    home = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="bsipatch-crash-", dir=home) as folder:
        yield Path(folder)


def why_not(kind: Kind) -> str | None:
    """Why power cuts on `kind` cannot be replayed here; None when they can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    for path in ("/dev/fuse", "/dev/loop-control"):
        if not os.access(path, os.R_OK | os.W_OK):
            return f"{path} cannot be opened here"
    if shutil.which(kind.make[0]) is None:
        return f"{kind.make[0]} is not installed"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"mfusepy does not load ({error}); on Debian: apt-get install fuse3"
    child = os.fork()
    if child == 0:  # in a child, since a namespace cannot be left again
        code = 1
        with contextlib.suppress(BaseException):
            private_mounts()
            with memory_folder() as folder:
                (folder / "at").mkdir()
                make_file_system(kind, folder / "image")
                fd, device = attach(str(folder / "image"))
                with mounted(device, folder / "at", kind):
                    code = 0
                os.close(fd)
        os._exit(code)
    if os.waitpid(child, 0)[1] != 0:
        return f"{kind.name} cannot be loop-mounted here"
    return None
