"""Type information of kernel modules (format-images-elf.md, "BTF")."""

from __future__ import annotations

from tests.reference.images import kinds
from tests.reference.images.model import Image, within

ROOM = 1 << 24
TYPED = {2, *range(8, 15), 17, 18}
ROWS = {
    **dict.fromkeys([1, 14, 17], "."),
    3: "tt.",
    4: "st.",
    5: "st.",
    6: "s.",
    13: "st",
    15: "t..",
    19: "s..",
}
ONE_ROW = {1, 3, 14, 17}


def read(image: Image, off: int, size: int, types_addr: int, strings_addr: int) -> None:
    """Adds the fields of a .BTF section that name types and strings."""
    file = image.file
    if size < 24 or file.u16(off) != 0xEB9F:
        return
    head = file.u32(off + 4)
    types, types_len = head + file.u32(off + 8), file.u32(off + 12)
    strings, strings_len = head + file.u32(off + 16), file.u32(off + 20)
    if not within(types, types_len, size) or not within(strings, strings_len, size):
        return
    bases = {"t": image.register(types_addr), "s": image.register(strings_addr)}

    def field(at: int, space: str) -> None:
        if 0 < file.u32(at) < ROOM:
            image.add(at, kinds.BASE32, bases[space])

    at, end = off + types, off + types + types_len
    while end - at >= 12:
        info = file.u32(at + 4)
        kind = info >> 24 & 31
        if kind == 0 or kind > 19:
            return
        field(at, "s")
        if kind in TYPED:
            field(at + 8, "t")
        at += 12
        row = ROWS.get(kind, "")
        for _ in range(1 if kind in ONE_ROW else info & 0xFFFF if row else 0):
            if end - at < 4 * len(row):
                return
            for space in row:
                if space != ".":
                    field(at, space)
                at += 4
