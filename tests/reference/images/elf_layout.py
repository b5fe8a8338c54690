"""How an ELF file is divided up into sections (format-images-elf.md, 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tests.reference.images import model
from tests.reference.images.model import CODE, OTHER, ZEROFILL, name_hash, within

if TYPE_CHECKING:
    from tests.reference.images.elf import Elf, Header, Section

NULL, SYMTAB, STRTAB, NOBITS = 0, 2, 3, 8
ALLOC, EXEC, THREAD_LOCAL = 2, 4, 0x400
RELOCATABLE_BASE = 1 << 28
PAGE = 4096
BTF = name_hash(b".BTF")
BTF_ROOM = 1 << 24
FULL, OF_FILE, NO_TRUST = range(3)


class Item(NamedTuple):
    """What wants bytes of the file."""

    off: int
    size: int
    addr: int | None
    role: int
    section: int | None = None


@dataclass
class Piece:
    """What got them; `size` of memory when there is no file offset."""

    off: int | None
    size: int
    addr: int | None
    role: int
    section: int | None


def lay_out(elf: Elf) -> None:
    """Gives addresses, divides up the file, and fills the image's sections."""
    if elf.relocatable:
        _give_addresses(elf)
    pieces = _divide(elf)
    pieces += _zero_fill(elf)
    pieces = _share_memory(pieces)
    for piece in pieces:
        mapped = piece.addr is not None
        memory = piece.size if mapped else 0
        file_size = piece.size if piece.off is not None else 0
        elf.image.sections.append(
            model.Section(piece.off or 0, file_size, piece.addr or 0, memory, piece.role, mapped, 0)
        )
        if piece.section is None:
            continue
        section = elf.sections[piece.section]
        if piece.off == section.off and piece.size == section.size:
            section.whole = True
        if piece.addr == section.addr and piece.size == section.size:
            section.mapped = True


def _round_up(size: int) -> int:
    return -(-size // PAGE) * PAGE


def _give_addresses(elf: Elf) -> None:
    after = RELOCATABLE_BASE + _round_up(len(elf.file))
    has_btf = False
    for s in elf.sections:
        s.addr = 0
        if s.type == NOBITS and s.flags & ALLOC:
            if s.flags & THREAD_LOCAL:
                continue
            if s.size >= 1 << 32:
                s.type = NULL
                continue
            s.addr = after
            after += _round_up(s.size)
        elif s.type != NOBITS and s.off < len(elf.file):
            has_addr = s.flags & ALLOC or s.type in (SYMTAB, STRTAB)
            s.addr = RELOCATABLE_BASE + s.off if has_addr else 0
        has_btf |= s.name == BTF
    if has_btf:
        elf.btf = (after, after + BTF_ROOM)


def _loaded(elf: Elf, s: Section) -> bool:
    if elf.relocatable or not elf.segments:
        return True
    for segment in elf.segments:
        if s.addr < segment.addr or not within(s.addr - segment.addr, s.size, segment.mem_size):
            continue
        if s.type == NOBITS:
            return True
        inside = within(s.addr - segment.addr, s.size, segment.file_size)
        if inside and s.off >= segment.off and s.off - segment.off == s.addr - segment.addr:
            return True
    return False


def _trust(elf: Elf, s: Section) -> int:
    if not within(s.off, s.size, len(elf.file)):
        return NO_TRUST
    if not (s.flags & ALLOC or (elf.relocatable and s.addr)):
        return OF_FILE
    return FULL if s.addr + s.size < 1 << 64 and _loaded(elf, s) else NO_TRUST


def _divide(elf: Elf) -> list[Piece]:
    whole = len(elf.file)
    by_trust: list[list[Item]] = [[], [], []]
    for s in elf.sections:
        if s.type not in (NULL, NOBITS):
            trust = _trust(elf, s)
            role = CODE if trust == FULL and s.flags & EXEC else OTHER
            addr = s.addr if trust == FULL else None
            by_trust[trust].append(Item(s.off, s.size, addr, role, s.index))
    headers = [_header_item(elf, *place) for place in ((0, 64), elf.header_place)]
    headers.append(_header_item(elf, *elf.section_place))
    lists = [
        by_trust[FULL],
        headers,
        by_trust[OF_FILE],
        [
            Item(s.off, s.file_size, s.addr, CODE if elf.made_up and s.flags & 1 else OTHER)
            for s in elf.segments
        ],
        by_trust[NO_TRUST],
        [Item(0, whole, None, OTHER)],
    ]
    free = [(0, whole)]
    pieces: list[Piece] = []
    for items in lists:
        cut = [item._replace(size=min(item.size, whole - item.off)) for item in items
               if item.off < whole]  # fmt: skip
        cut.sort(key=lambda item: (item.off, -item.size, item.section or 0))
        for item in cut:
            free = _take(item, free, pieces)
    pieces.sort(key=lambda piece: piece.off or 0)
    return pieces


def _header_item(elf: Elf, off: int, size: int) -> Item:
    segment: Header
    for segment in elf.segments:
        if off >= segment.off and within(off - segment.off, size, segment.file_size):
            return Item(off, size, segment.addr + off - segment.off, OTHER)
    return Item(off, size, None, OTHER)


def _take(
    item: Item, free: Iterable[tuple[int, int]], pieces: list[Piece]
) -> list[tuple[int, int]]:
    """Gives an item what is free of its bytes; what is free then."""
    left: list[tuple[int, int]] = []
    for begin, end in free:
        start, stop = max(begin, item.off), min(end, item.off + item.size)
        if start >= stop:
            left.append((begin, end))
            continue
        addr = None if item.addr is None else item.addr + start - item.off
        pieces.append(Piece(start, stop - start, addr, item.role, item.section))
        if begin < start:
            left.append((begin, start))
        if stop < end:
            left.append((stop, end))
    return left


def _zero_fill(elf: Elf) -> list[Piece]:
    pieces = [
        Piece(None, s.size, s.addr, ZEROFILL, s.index)
        for s in elf.sections
        if s.type == NOBITS
        and s.flags & ALLOC
        and not s.flags & THREAD_LOCAL
        and s.size
        and s.addr + s.size < 1 << 64
        and _loaded(elf, s)
    ]
    if elf.btf is not None:
        pieces += [Piece(None, BTF_ROOM, addr, ZEROFILL, None) for addr in elf.btf]
    if elf.made_up:
        for s in elf.segments:
            if s.mem_size > s.file_size:
                size = s.mem_size - s.file_size
                pieces.append(Piece(None, size, s.addr + s.file_size, ZEROFILL, None))
    return pieces


def _share_memory(pieces: list[Piece]) -> list[Piece]:
    """Leaves each address to one piece."""
    mapped = [piece for piece in pieces if piece.addr is not None]
    mapped.sort(
        key=lambda p: (
            p.addr,
            p.off or 0,
            -p.size,
            -1 if p.section is None else p.section,
        )
    )
    end = 0
    dropped = []
    for piece in mapped:
        assert piece.addr is not None
        if piece.addr >= end:
            end = piece.addr + piece.size
        elif piece.off is None:
            dropped.append(id(piece))
        else:
            piece.addr, piece.role = None, OTHER
    return [piece for piece in pieces if id(piece) not in dropped]
