"""One generation's folder: its record read, the whole of it removed."""

from __future__ import annotations

import contextlib
import os

from ..errors import NotFoundError, StoreDamagedError
from ..limits import Limits
from . import durable, records
from .beneath import open_folder
from .records import Generation


def read_generation(root_fd: int, number: int, file: str, limits: Limits) -> Generation:
    """The record of a generation. Raises StoreDamagedError when it is not what it must be."""
    name = f"{records.generation_name(number)}/{records.GENERATION}"
    try:
        found = records.read(Generation, name, dir_fd=root_fd, limits=limits, file=f"{file}/{name}")
    except NotFoundError as error:
        raise StoreDamagedError("a generation has no record", file=f"{file}/{name}") from error
    if found.number != number:
        raise StoreDamagedError(
            "a generation's record is of another", file=f"{file}/{name}", found=found.number
        )
    return found


def is_unproven(root_fd: int, number: int) -> bool:
    """Whether a generation has yet to pass its trial, live or not. Raises OSError."""
    name = f"{records.generation_name(number)}/{records.UNPROVEN}"
    try:
        os.stat(name, dir_fd=root_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def prove(root_fd: int, number: int) -> None:
    """The generation has passed its trial, durably. Raises OSError."""
    fd = open_folder(root_fd, records.generation_name(number))
    try:
        durable.remove_file(records.UNPROVEN, dir_fd=fd)
    finally:
        os.close(fd)


def discard(root_fd: int, number: int) -> None:
    """Removes a generation: renamed to the trash durably, then unlinked. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(records.TRASH, 0o700, dir_fd=root_fd)
    name = f"{records.TRASH}/{number}"
    durable.remove_tree(name, dir_fd=root_fd)
    with contextlib.suppress(FileNotFoundError):
        os.rename(records.generation_name(number), name, src_dir_fd=root_fd, dst_dir_fd=root_fd)
        durable.sync_dir(records.GENERATIONS, dir_fd=root_fd)
        durable.remove_tree(name, dir_fd=root_fd)
    durable.remove_tree(records.TRASH, dir_fd=root_fd)
