"""A writer of small Mach-O files for readable tests.

Segments start at multiples of `PAGE` in the file and at `base` plus that offset in memory
(plus the `slide` a test asks for), sections follow one another inside; so a test knows all
addresses as soon as it has added its sections and can fill in their contents afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

X86_64, ARM64 = 0x01000007, 0x0100000C
PAGE = 0x1000
HEADER_ROOM = 0x800  # for the header and the load commands
BASE = 0x100000000

LC_DATA_IN_CODE, LC_FUNCTION_STARTS, LC_CODE_SIGNATURE = 0x29, 0x26, 0x1D
LC_CHAINED_FIXUPS, LC_EXPORTS_TRIE = 0x80000034, 0x80000033
PURE_INSTRUCTIONS = 0x80000000
ZEROFILL, INIT_OFFSETS = 1, 0x16
N_SECT = 0x0E

CHAIN_STRIDE = {1: 8, 2: 4, 6: 4, 7: 4, 9: 8, 10: 4, 12: 8}
NEXT_SHIFT = 51


@dataclass
class Section:
    """One section; `off` is from the start of the slice, sizes in bytes."""

    name: str
    segment: str
    off: int
    addr: int
    size: int
    flags: int
    data: bytearray


@dataclass
class Segment:
    """One segment; `size` is what it has in the file."""

    name: str
    off: int
    addr: int
    size: int = 0
    extra_memory: int = 0
    sections: list[Section] = field(default_factory=list)


@dataclass
class ToyMacho:
    """Collects segments, sections and tables and writes them, with `build`, as one slice."""

    cpu: int = ARM64
    subtype: int = 0
    base: int = BASE
    filetype: int = 6
    segments: list[Segment] = field(default_factory=list)
    tables: list[tuple[int, bytes]] = field(default_factory=list)
    symbols: list[tuple[int, int, int]] = field(default_factory=list)
    names: list[int] = field(default_factory=list)
    indirect: list[int] = field(default_factory=list)
    strings: bytes = b""
    rebase: bytes = b""
    end: int = 0

    def segment(self, name: str, *, slide: int = 0) -> Segment:
        """Starts a segment at the next page; later sections go into it."""
        off = -(-self.end // PAGE) * PAGE
        segment = Segment(name, off, self.base + off + slide)
        if not self.segments:
            segment.size = HEADER_ROOM
        self.segments.append(segment)
        self.end = off + segment.size
        return segment

    def section(self, name: str, data: bytes | int, *, flags: int = 0, align: int = 16) -> Section:
        """Adds a section with `data`, or with that many zero bytes, to the last segment."""
        content = bytearray(data)
        segment = self.segments[-1]
        at = -(-segment.size // align) * align
        section = Section(
            name,
            segment.name,
            segment.off + at,
            segment.addr + at,
            len(content),
            flags,
            content,
        )
        segment.sections.append(section)
        segment.size = at + len(content)
        self.end = segment.off + segment.size
        return section

    def zerofill(self, name: str, size: int) -> Section:
        """Adds a section without file bytes after everything else of the last segment."""
        segment = self.segments[-1]
        addr = segment.addr + segment.size + segment.extra_memory
        section = Section(name, segment.name, 0, addr, size, ZEROFILL, bytearray())
        segment.sections.append(section)
        segment.extra_memory += size
        return section

    def table(self, command: int, data: bytes) -> None:
        """Adds a load command that names `data` in __LINKEDIT."""
        self.tables.append((command, data))

    def chains(
        self,
        pointer_format: int,
        chained: Mapping[str, Mapping[int, int]],
        page_size: int = PAGE,
        imports: Sequence[int] = (),
        import_names: bytes = b"",
    ) -> None:
        """Adds LC_DYLD_CHAINED_FIXUPS for pointers, given as segment -> offset -> bits.

        The bits come without `next`, which is filled in here; a section must hold them. `imports`
        are the words of the imports table, whose names are in `import_names`.
        """
        infos = bytearray()
        offsets = []
        starts_size = 4 + 4 * len(self.segments)
        starts_size = -(-starts_size // 8) * 8
        for segment in self.segments:
            pointers = chained.get(segment.name, {})
            if not pointers:
                offsets.append(0)
                continue
            pages = max(pointers) // page_size + 1
            first = [0xFFFF] * pages
            ordered = sorted(pointers)
            for here, after in zip(ordered, [*ordered[1:], None], strict=True):
                page = here // page_size
                if first[page] == 0xFFFF:
                    first[page] = here % page_size
                step = 0
                if after is not None and after // page_size == page:
                    step, odd = divmod(after - here, CHAIN_STRIDE[pointer_format])
                    assert odd == 0
                self._poke(segment, here, pointers[here] | step << NEXT_SHIFT)
            offsets.append(starts_size + len(infos))
            info = struct.pack(
                "<IHHQIH",
                22 + 2 * pages,
                page_size,
                pointer_format,
                segment.addr - self.base,
                0,
                pages,
            ) + struct.pack(f"<{pages}H", *first)
            infos += info + bytes(-len(info) % 8)
        starts = struct.pack("<I", len(offsets)) + struct.pack(f"<{len(offsets)}I", *offsets)
        starts += bytes(starts_size - len(starts))
        rows = 32 + len(starts) + len(infos)
        strings = rows + 4 * len(imports)
        header = struct.pack("<7I", 0, 32, rows, strings, len(imports), 1, 0) + bytes(4)
        tail = struct.pack(f"<{len(imports)}I", *imports) + import_names
        self.table(LC_CHAINED_FIXUPS, header + starts + bytes(infos) + tail)

    def _poke(self, segment: Segment, at: int, pointer: int) -> None:
        for section in segment.sections:
            begin = section.off - segment.off
            if begin <= at < begin + len(section.data):
                struct.pack_into("<Q", section.data, at - begin, pointer)
                return
        raise AssertionError(f"no section holds {segment.name}+{at:#x}")

    def build(self) -> bytes:
        """The finished slice."""
        commands = [self._segment_command(segment) for segment in self.segments]
        off = -(-self.end // PAGE) * PAGE
        linkedit = bytearray()

        def place(data: bytes) -> tuple[int, int]:
            at = off + len(linkedit)
            linkedit.extend(data + bytes(-len(data) % 8))
            return (at, len(data)) if data else (0, 0)

        for command, data in self.tables:
            commands.append(struct.pack("<4I", command, 16, *place(data)))
        if self.rebase:
            words = [*place(self.rebase), *[0] * 8]
            commands.append(struct.pack("<12I", 0x80000022, 48, *words))
        if self.symbols:
            names = self.names or [0] * len(self.symbols)
            entries = b"".join(
                struct.pack("<IBBHQ", name, t, s, 0, v)
                for name, (t, s, v) in zip(names, self.symbols, strict=True)
            )
            sym_off, sym_size = place(entries)
            str_off, str_size = place(self.strings or b"\0")
            commands.append(struct.pack("<6I", 2, 24, sym_off, sym_size // 16, str_off, str_size))
        if self.indirect:
            where, size = place(struct.pack(f"<{len(self.indirect)}I", *self.indirect))
            commands.append(struct.pack("<20I", 0xB, 80, *[0] * 12, where, size // 4, *[0] * 4))
        tail = Segment("__LINKEDIT", off, self.base + off, len(linkedit))
        commands.append(self._segment_command(tail))
        body = b"".join(commands)
        header = struct.pack(
            "<8I", 0xFEEDFACF, self.cpu, self.subtype, self.filetype, len(commands), len(body), 0, 0
        )
        assert len(header) + len(body) <= HEADER_ROOM
        image = bytearray(off + len(linkedit))
        image[: len(header) + len(body)] = header + body
        for segment in self.segments:
            for section in segment.sections:
                image[section.off : section.off + len(section.data)] = section.data
        image[off:] = linkedit
        return bytes(image)

    def _segment_command(self, segment: Segment) -> bytes:
        memory = -(-(segment.size + segment.extra_memory) // PAGE) * PAGE
        sections = b"".join(
            struct.pack(
                "<16s16sQQ8I",
                s.name.encode(),
                s.segment.encode(),
                s.addr,
                s.size,
                s.off,
                0,
                0,
                0,
                s.flags,
                0,
                0,
                0,
            )
            for s in segment.sections
        )
        return (
            struct.pack(
                "<II16sQQQQ4I",
                0x19,
                72 + len(sections),
                segment.name.encode(),
                segment.addr,
                memory,
                segment.off,
                segment.size,
                7,
                7,
                len(segment.sections),
                0,
            )
            + sections
        )


def fat(slices: Iterable[tuple[int, int, bytes]], *, wide: bool = False) -> bytes:
    """A fat file of (cpu, subtype, slice), each at a multiple of PAGE."""
    parts = list(slices)
    entries = b""
    body = bytearray(PAGE)
    for cpu, subtype, data in parts:
        body += bytes(-len(body) % PAGE)
        if wide:
            entries += struct.pack(">IIQQII", cpu, subtype, len(body), len(data), 12, 0)
        else:
            entries += struct.pack(">5I", cpu, subtype, len(body), len(data), 12)
        body += data
    header = struct.pack(">II", 0xCAFEBABF if wide else 0xCAFEBABE, len(parts)) + entries
    body[: len(header)] = header
    return bytes(body)
