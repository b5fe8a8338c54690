"""STORE/feed/adopted.json: the improvements that the baseline itself contains."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from ...errors import NotFoundError, StoreDamagedError
from ...limits import Limits
from ...store import durable

ADOPTED = "adopted.json"
FORMAT = 1


class Contained(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One improvement that is part of the baseline: result is its tree digest, in hex."""

    display: str
    build: str
    result: str


class Adopted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the last adoption of a new baseline found."""

    format: int
    time: str
    contained: tuple[Contained, ...]


def write(found: Adopted, *, dir_fd: int, file: str) -> None:
    """Makes it last. Raises SystemCallError."""
    with durable.system_calls("writing what was adopted", file):
        durable.replace_file(ADOPTED, msgspec.json.encode(found) + b"\n", dir_fd=dir_fd)


def contained(folder: Path, limits: Limits) -> frozenset[str]:
    """Result digests of the improvements that the baseline contains.

    Raises StoreDamagedError, SystemCallError.
    """
    name = folder / ADOPTED
    fd = -1
    try:
        with durable.system_calls("reading what was adopted", name):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            data = durable.read_file(ADOPTED, dir_fd=fd, limit=limits.max_record)
    except NotFoundError:
        return frozenset()
    finally:
        if fd >= 0:
            os.close(fd)
    try:
        found = msgspec.json.decode(data, type=Adopted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"unreadable record: {error}", file=name) from None
    return frozenset(item.result for item in found.contained)
