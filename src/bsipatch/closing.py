"""A leaf: objects whose close() is the end of their `with` block."""

from __future__ import annotations

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing import Self


class Closing:
    """Leaving a `with` block closes the object, whatever ended the block."""

    def close(self) -> None:
        """Lets go of what the object holds; safe to call twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
