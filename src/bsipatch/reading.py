"""A leaf: small files that people write, read as a whole."""

from __future__ import annotations

import os
import stat

from bsipatch.errors import BsipatchError, NotFoundError


def read_small(
    path: str | os.PathLike[str], most: int, *, what: str, refusal: type[BsipatchError]
) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises NotFoundError, and `refusal` for everything else that `path` may be.
    """
    try:
        # Non-blocking, so that a fifo in its place is refused instead of waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise refusal("not a regular file", file=path, hint=f"Name a {what}.")
            data = file.read(most + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no such {what}", file=path) from None
    except OSError as error:
        hint = f"Name a {what} that can be read."
        raise refusal(f"cannot be read: {error.strerror}", file=path, hint=hint) from error
    if len(data) > most:
        raise refusal(f"too large for a {what}", file=path, expected=f"at most {most} bytes")
    return data
