"""What the core tells of where a patch's bytes went, as Python sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from bsipatch._core._bsipatch import ffi, lib
from bsipatch._core._native import Codec


class Place(NamedTuple):
    """A section of the new file, or all outside of them; see bsp_explain_place."""

    image: int | None
    old_image: int | None
    format: int
    arch: int
    role: int
    paired: bool
    new_off: int
    len: int
    addr: int
    old_off: int
    old_len: int


class Row(NamedTuple):
    """What a place holds of one kind of reference; see bsp_explain_row."""

    place: int
    kind: int
    refs: int
    refs_moved: int
    refs_right: int
    refs_overridden: int
    refs_fixed: int
    refs_corrected: int
    byte_fixes: int
    byte_runs: int
    literal_bytes: int
    cover_entries: int
    cover_bytes: int
    fill_bytes: int
    price: tuple[int, ...]  #: by stream id, in 1/65536 bits


class PricedStream(NamedTuple):
    """See bsp_explain_stream."""

    id: int
    codec: Codec
    entries: int
    plain_len: int
    coded_len: int
    price: int
    price_frame: int


class Account(NamedTuple):
    """Where the bytes of a patch went, as the core counts it."""

    places: list[Place]
    rows: list[Row]
    streams: list[PricedStream]
    #: by stretch of the new file: bytes carried, predicted, corrected, literal, filled
    buckets: list[tuple[int, ...]]


def read_account(handle: Any) -> Account:
    """Copies what a bsp_explanation holds."""

    def items(name: str, copy: Callable[[Any, Any, int], int]) -> list[Any]:
        count = copy(handle, ffi.NULL, 0)
        array = ffi.new(f"{name}[]", count)
        copy(handle, array, count)
        fields = [field for field, _ in ffi.typeof(name).fields]
        return [[plain(getattr(item, field)) for field in fields] for item in array]

    def plain(value: Any) -> Any:  # arrays are views of what is freed on return
        return tuple(value) if isinstance(value, ffi.CData) else value

    def known(number: int) -> int | None:
        return None if number == lib.BSP_EXPLAIN_NONE else number

    places = items("bsp_explain_place", lib.bsp_explain_places)
    rows = items("bsp_explain_row", lib.bsp_explain_rows)
    streams = items("bsp_explain_stream", lib.bsp_explain_streams)
    buckets = items("bsp_explain_bucket", lib.bsp_explain_buckets)
    return Account(
        places=[
            Place(known(a), known(b), f, c, r, bool(p), *rest) for a, b, f, c, r, p, *rest in places
        ],
        rows=[Row(*counts) for counts in rows],
        streams=[PricedStream(number, Codec(codec), *rest) for number, codec, *rest in streams],
        buckets=[tuple(counts) for counts in buckets],
    )
