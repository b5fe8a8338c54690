"""What a repair that was cut off left in a tree goes, found by its name.

A repair notes the generations that it works on before it makes a name in any of
them, so that recovery looks into those trees and into no other, and into none
at all after a clean end.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from ..errors import NotFoundError, StoreDamagedError
from ..limits import Limits
from . import durable, records
from .beneath import DIRECTORY, open_folder
from .records import Repairing
from .seeded import writable

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def swept(root_fd: int, file: str, limits: Limits, generations: Sequence[int]) -> Iterator[None]:
    """Names of a repair in these generations' trees do not outlast the with block.

    Not even where it is cut off: then recovery removes them.  On a full disk that
    cannot be promised, and what can be repaired there is.  Raises OSError.
    """
    record = records.encode(Repairing(generations=tuple(generations)))
    try:
        durable.replace_file(records.REPAIRING, record, dir_fd=root_fd)
    except OSError as error:
        if error.errno not in _FULL:
            raise
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # else the next writer does it
            sweep(root_fd, file, limits)
        raise
    durable.remove_file(records.REPAIRING, dir_fd=root_fd)


def sweep(root_fd: int, file: str, limits: Limits) -> list[str]:
    """Removes what an interrupted repair left, then its record; the paths that went.

    The store must be locked.  Idempotent.  Raises OSError.
    """
    shown = f"{file}/{records.REPAIRING}"
    generations: Sequence[int]
    try:
        record = records.read(
            Repairing, records.REPAIRING, dir_fd=root_fd, limits=limits, file=shown
        )
        generations = record.generations
    except NotFoundError:
        return []
    except StoreDamagedError:  # then any tree may have been meant
        generations = records.generation_numbers(root_fd)
    gone: list[str] = []
    for number in generations:
        place = f"{records.generation_name(number)}/{records.TREE}"
        try:
            fd = open_folder(root_fd, place)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            before = len(gone)
            gone += _sweep(fd, f"{place}/")
            if len(gone) > before:
                durable.sync_file_system(fd)
        finally:
            os.close(fd)
    durable.remove_file(records.REPAIRING, dir_fd=root_fd)
    return gone


def _sweep(folder: int, prefix: str) -> Iterator[str]:
    for name, is_dir in _names(folder):
        if name.startswith(records.REPAIR_PREFIX) and name.endswith(records.STAGE_SUFFIX):
            with writable(folder):
                durable.remove_tree(name, dir_fd=folder)
            yield prefix + os.fsencode(name).decode("utf-8", "backslashreplace")
        elif is_dir:
            try:
                below = os.open(name, DIRECTORY, dir_fd=folder)
            except OSError:
                continue  # a finding of check-store; recovery goes on
            try:
                yield from _sweep(below, f"{prefix}{name}/")
            finally:
                os.close(below)


def _names(folder: int) -> list[tuple[str, bool]]:
    """What is in a folder, and which of it are folders; nothing where it cannot be read."""
    found: list[tuple[str, bool]] = []
    with contextlib.suppress(OSError):
        os.lseek(folder, 0, os.SEEK_SET)  # btrfs lists what was there when it was opened
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return found
