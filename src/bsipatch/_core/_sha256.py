"""The core's SHA-256, of one message or of two at once, without the GIL.

Two at once take seven tenths of the time where the processor has instructions that
would else wait for their own results.
"""

from __future__ import annotations

from bsipatch._core._bsipatch import ffi, lib

TYPE_CHECKING = False  # typing loads slowly
if TYPE_CHECKING:
    from typing_extensions import Buffer


def sha256(data: Buffer) -> bytes:
    """The digest of one buffer."""
    digest = bytearray(32)
    with ffi.from_buffer("uint8_t[]", data) as view:
        lib.bsp_sha256(view, len(view), ffi.from_buffer("uint8_t[]", digest, require_writable=True))
    return bytes(digest)


def pays_in_pairs() -> bool:
    """Whether two messages at once take clearly less time here than one after the other."""
    return bool(lib.bsp_sha256_pays_in_pairs())


class Sha256:
    """A digest under way, as hashlib's; one thread at a time."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = ffi.new("bsp_sha256_state *")
        lib.bsp_sha256_begin(self._state)

    def update(self, data: Buffer) -> None:
        with ffi.from_buffer("uint8_t[]", data) as view:
            lib.bsp_sha256_update(self._state, view, len(view))

    def update_beside(self, data: Buffer, other: Sha256, other_data: Buffer) -> None:
        """Takes in `data`, and `other` its own, which is as long.

        Raises: ValueError when it is not.
        """
        with (
            ffi.from_buffer("uint8_t[]", data) as view,
            ffi.from_buffer("uint8_t[]", other_data) as other_view,
        ):
            if len(view) != len(other_view):
                raise ValueError("two pieces of different length")
            lib.bsp_sha256_update_two(self._state, view, other._state, other_view, len(view))

    def digest(self) -> bytes:
        """The digest of what was taken in; more may follow."""
        digest = bytearray(32)
        out = ffi.from_buffer("uint8_t[]", digest, require_writable=True)
        lib.bsp_sha256_digest(self._state, out)
        return bytes(digest)
