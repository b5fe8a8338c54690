"""Where a feed lies, as the publisher sees it: a few verbs with conditions on writing.

Everything that makes a publication safe rests on two of them: create() fails when something is
there, replace() fails when it is not what was read.  Both hold between processes and machines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bsipatch.errors import MissingDependencyError, PublishError, UsageError

__all__ = ["ConflictError", "Storage", "Stored", "open_storage"]

_SCHEMES = ("s3", "gs", "az", "http", "https")


class ConflictError(PublishError):
    """A conditional write found something else than expected: somebody else has written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's bytes, and the mark that replace() compares."""

    data: bytes
    version: str


class Storage(Protocol):
    """What a feed is kept in. Paths are relative, with "/" between parts.

    Safe for use by one thread at a time.  All raise TransferError or SystemCallError when the
    storage fails, and what is said at each.
    """

    #: for messages
    name: str

    def read(self, path: str, most: int) -> Stored | None:
        """The whole object; None when there is none. Raises LimitError beyond `most` bytes."""

    def stream(self, path: str) -> Iterator[bytes]:
        """The object in pieces. Raises NotFoundError."""

    def size(self, path: str) -> int | None:
        """Its size in bytes, None when there is none."""

    def create(self, path: str, data: bytes) -> str:
        """Writes a new object, returns its version. Raises ConflictError when there is one."""

    def replace(self, path: str, data: bytes, version: str) -> str:
        """Writes over the version that was read. Raises ConflictError when it is another now."""

    def upload(self, path: str, file: Path) -> None:
        """Writes a large object that nobody refers to yet, over whatever is there."""

    def copy(self, path: str, new_path: str) -> None:
        """Gives an object a second name without transferring it. Raises NotFoundError."""

    def remove(self, path: str) -> None:
        """Removes an object; nothing happens when there is none."""


def open_storage(place: str) -> Storage:
    """A directory, or an address: s3://, gs://, az:// for reading and writing, http(s):// to read.

    Credentials and endpoints come from each service's own variables.
    Raises UsageError for other addresses, MissingDependencyError without the "feed" extra.
    """
    scheme, separator, _ = place.partition("://")
    if not separator:
        from bsipatch.publish.feed.local import LocalStorage

        return LocalStorage(Path(place))
    if scheme not in _SCHEMES:
        raise UsageError(
            "no feed can be kept there",
            expected="a directory, " + ", ".join(f"{name}://" for name in _SCHEMES),
            found=place,
        )
    try:
        from bsipatch.publish.feed.objects import open_object_storage
    except ImportError as error:
        raise MissingDependencyError(
            "object stores need obstore", hint="pip install 'bsipatch[feed]'"
        ) from error
    return open_object_storage(place)
