"""Mach-O files: slices, load commands and sections (format-images-macho.md)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.reference.images import (
    chained_fixups,
    frames,
    go_functions,
    jump_tables,
    kinds,
    macho_readers,
    macho_tables,
)
from tests.reference.images.kinds import MASK64
from tests.reference.images.model import (
    ARM64,
    CODE,
    MACHO,
    NO_ARCH,
    OTHER,
    X86_64,
    ZEROFILL,
    Bytes,
    Image,
    Section,
    name_hash,
    within,
)

MAGIC = b"\xcf\xfa\xed\xfe"
FAT, FAT_WIDE = b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf"
SEGMENT = 0x19
READERS = {
    b"__unwind_info": "unwind",
    b"__eh_frame": "frames",
    b"__init_offsets": "offsets",
    b"__objc_methlist": "methods",
    b"__swift5_types": "relative",
    b"__swift5_types2": "relative",
    b"__swift5_protos": "relative",
    b"__swift5_proto": "relative",
    b"__swift5_fieldmd": "fields",
    b"__gopclntab": "go",
}
# command -> least size, then (position of its two words, bytes of an entry, name, table)
TABLES: dict[int, tuple[int, list[tuple[int, int, str]]]] = {
    0x02: (24, [(8, 16, "symtab"), (16, 1, "strtab")]),
    0x0B: (
        80,
        [(32, 8, "toc"), (56, 4, "indirect_symtab"), (64, 8, "external_relocs"),
         (72, 8, "local_relocs")],
    ),
    **dict.fromkeys(
        [0x22, 0x80000022],
        (48, [(8, 1, "rebase"), (16, 1, "bind"), (24, 1, "weak_bind"), (32, 1, "lazy_bind"),
              (40, 1, "export")]),
    ),
    0x1D: (16, [(8, 1, "code_signature")]),
    0x1E: (16, [(8, 1, "split_info")]),
    0x26: (16, [(8, 1, "function_starts")]),
    0x29: (16, [(8, 1, "data_in_code")]),
    0x2B: (16, [(8, 1, "code_sign_drs")]),
    0x2E: (16, [(8, 1, "optimization_hint")]),
    0x36: (16, [(8, 1, "atom_info")]),
    0x37: (16, [(8, 1, "function_variants")]),
    0x38: (16, [(8, 1, "variant_fixups")]),
    0x80000033: (16, [(8, 1, "exports_trie")]),
    0x80000034: (16, [(8, 1, "chained_fixups")]),
}  # fmt: skip
PLACES: dict[int, tuple[int, ...]] = {
    0x02: (8, 16),
    0x0B: (56,),
    **dict.fromkeys([0x22, 0x80000022], (8, 16, 24, 32, 40)),
}


@dataclass
class Segment:
    """A segment; `off` from the start of the file."""

    name: bytes
    addr: int
    mem_size: int
    off: int
    file_size: int
    sound: bool

    @property
    def end(self) -> int:
        return self.off + self.file_size


@dataclass
class Piece:
    """A run of the file that may become a section."""

    off: int
    size: int
    name: bytes
    role: int = OTHER
    addr: int | None = None
    reader: str | None = None
    kept: bool = False


@dataclass
class Range:
    """A table in the file."""

    off: int
    size: int


@dataclass
class Parsed:
    """What the load commands of a slice say."""

    image: Image
    begin: int
    end: int
    commands: list[tuple[int, int, int]] = field(default_factory=list)  # at, command, size
    segments: list[Segment] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    tables: dict[str, Range] = field(default_factory=dict)

    def base_of(self, off: int) -> int | None:
        """The base of a file offset, registered; None when nothing is mapped there."""
        section = self.image.section_at(off)
        if section is None or not section.mapped:
            return None
        return self.image.register(section.addr + off - section.file_off)


def read(data: bytes) -> list[Image]:
    """The images of a Mach-O file, thin or fat."""
    file = Bytes(data)
    slices = [(0, len(data))] if data[:4] == MAGIC else _fat(data)
    return [
        _slice(file, off, size)
        for off, size in slices
        if size >= 32 and data[off : off + 4] == MAGIC
    ]


def _fat(data: bytes) -> list[tuple[int, int]]:
    if len(data) < 8:
        return []

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "big")

    wide = data[:4] == FAT_WIDE
    entry = 32 if wide else 20
    found = []
    for i in range(min(number(4, 4), 64, (len(data) - 8) // entry)):
        at = 8 + i * entry
        where = (number(at + 8, 8), number(at + 16, 8)) if wide else (
            number(at + 8, 4), number(at + 12, 4)
        )  # fmt: skip
        if within(*where, len(data)):
            found.append(where)
    found.sort(key=lambda where: where[0])
    taken: list[tuple[int, int]] = []
    end = 0
    for off, size in found:
        if size and off >= end:
            taken.append((off, size))
            end = off + size
    return taken


def _slice(file: Bytes, begin: int, size: int) -> Image:
    arch = {0x0100000C: ARM64, 0x01000007: X86_64}.get(file.u32(begin + 4), NO_ARCH)
    image = Image(file, MACHO, begin, size, arch)
    parsed = Parsed(image, begin, begin + size)
    _commands(parsed, file)
    _sections(parsed)
    image.base_addr = _base_addr(parsed)
    image.finish_sections()
    for piece in parsed.pieces:
        if piece.kept and piece.reader is not None:
            _read_piece(parsed, piece)
    jump_tables.add_all(image)
    _command_refs(parsed, file)
    chained_fixups.read(parsed)
    macho_tables.read(parsed)
    image.finish_refs()
    return image


def _commands(parsed: Parsed, file: Bytes) -> None:
    at = parsed.begin + 32
    end = min(at + file.u32(parsed.begin + 20), parsed.end)
    segments = 0
    for _ in range(file.u32(parsed.begin + 16)):
        if end - at < 8:
            break
        command, size = file.u32(at), file.u32(at + 4)
        if size < 8 or size > end - at:
            break
        parsed.commands.append((at, command, size))
        if command == SEGMENT and size >= 72 and segments < 256:
            segments += 1
            _segment(parsed, file, at, size)
        elif command in TABLES and size >= TABLES[command][0]:
            for place, entry, name in TABLES[command][1]:
                _table(parsed, file, at + place, entry, name)
        at += size


def _table(parsed: Parsed, file: Bytes, at: int, entry: int, name: str) -> None:
    off, size = file.u32(at), file.u32(at + 4) * entry
    if size == 0 or not within(off, size, parsed.end - parsed.begin):
        return
    off += parsed.begin
    parsed.pieces.append(Piece(off, size, name.encode()))
    parsed.tables["exports_trie" if name == "export" else name] = Range(off, size)


def section_headers(file: Bytes, at: int, size: int) -> range:
    """Where the section headers of a segment command are."""
    count = min(file.u32(at + 64), (size - 72) // 80)
    return range(at + 72, at + 72 + 80 * count, 80)


def _segment(parsed: Parsed, file: Bytes, at: int, size: int) -> None:
    name = file.data[at + 8 : at + 24].partition(b"\0")[0]
    addr, mem_size, off, file_size = (file.u64(at + i) for i in (24, 32, 40, 48))
    slice_size = parsed.end - parsed.begin
    sound = within(off, file_size, slice_size) and addr + mem_size <= MASK64
    parsed.segments.append(Segment(name, addr, mem_size, parsed.begin + off, file_size, sound))
    for head in section_headers(file, at, size):
        own = file.data[head : head + 16].partition(b"\0")[0]
        segment_name = file.data[head + 16 : head + 32].partition(b"\0")[0]
        addr, length, off = file.u64(head + 32), file.u64(head + 40), file.u32(head + 48)
        flags = file.u32(head + 64)
        if length == 0 or addr + length > MASK64:
            continue
        if flags & 0xFF in (0x01, 0x0C, 0x12):
            full = name_hash(segment_name + b"," + own)
            parsed.image.sections.append(Section(0, 0, addr, length, ZEROFILL, True, full))
            continue
        if not within(off, length, slice_size):
            continue
        code = flags >> 31 & 1 or flags >> 10 & 1 or own == b"__text"
        reader = "offsets" if flags & 0xFF == 0x16 else READERS.get(own)
        role = CODE if code else OTHER
        parsed.pieces.append(Piece(parsed.begin + off, length, own, role, addr, reader))


def _sections(parsed: Parsed) -> None:
    """Fills the segments with pieces and the gaps between them."""
    taken: list[Segment] = []
    ordered = [s for s in parsed.segments if s.sound and s.file_size]
    for segment in sorted(ordered, key=lambda s: s.off):
        if taken and segment.off < taken[-1].end:
            segment.sound = False
        else:
            taken.append(segment)
    parsed.pieces.sort(key=lambda p: (p.off, p.size))
    for segment in taken:
        done = segment.off
        before = segment.name + b",start"
        for piece in parsed.pieces:
            if not segment.off <= piece.off < segment.end:
                continue
            if piece.off < done or piece.off + piece.size > segment.end:
                continue
            piece.kept = True
            if piece.addr is None and within(piece.off - segment.off, piece.size, segment.mem_size):
                piece.addr = segment.addr + piece.off - segment.off
            _gap(parsed.image, segment, done, piece.off, before)
            full = segment.name + b"," + piece.name
            _add_section(parsed.image, piece.off, piece.size, piece.addr, piece.role, full)
            before = full + b"+"
            done = piece.off + piece.size
        _gap(parsed.image, segment, done, segment.end, before)


def _gap(image: Image, segment: Segment, begin: int, end: int, name: bytes) -> None:
    if begin == end:
        return
    inside = within(begin - segment.off, end - begin, segment.mem_size)
    addr = segment.addr + begin - segment.off if inside else None
    _add_section(image, begin, end - begin, addr, OTHER, name)


def _add_section(
    image: Image, off: int, size: int, addr: int | None, role: int, name: bytes
) -> None:
    mapped = addr is not None
    image.sections.append(
        Section(off, size, addr or 0, size if mapped else 0, role, mapped, name_hash(name))
    )


def _base_addr(parsed: Parsed) -> int:
    for segment in parsed.segments:
        if segment.sound and segment.file_size and segment.off == parsed.begin:
            return segment.addr
    for segment in parsed.segments:
        if segment.name == b"__TEXT":
            return segment.addr
    return 0


def _read_piece(parsed: Parsed, piece: Piece) -> None:
    image, off, size = parsed.image, piece.off, piece.size
    assert piece.addr is not None
    if piece.reader == "frames":
        frames.Frames(image, off, size, piece.addr).walk()
    elif piece.reader == "go":
        kept = [p for p in parsed.pieces if p.kept and p.reader == "go"]
        if piece is kept[0]:
            go_functions.read(image, off, size, piece.addr)
    elif piece.reader is not None:
        macho_readers.READERS[piece.reader](image, off, size)


def _command_refs(parsed: Parsed, file: Bytes) -> None:
    image = parsed.image

    def place(at: int) -> None:
        value = file.u32(at)
        section = image.section_at(parsed.begin + value) if value else None
        if section is not None and section.mapped:
            base = image.register(section.addr - (section.file_off - parsed.begin))
            image.add(at, kinds.FILE32, base)

    for at, command, size in parsed.commands:
        if command == SEGMENT and size >= 72:
            if file.u64(at + 24):
                image.add(at + 24, kinds.ABS64)
            for head in section_headers(file, at, size):
                image.add(head + 32, kinds.ABS64)
                image.add(head + 40, kinds.BASE64, image.register(file.u64(head + 32)))
                place(head + 48)
        elif command in TABLES and size >= TABLES[command][0]:
            for where in PLACES.get(command, (8,)):
                place(at + where)
