"""Patches made by hand, number by number, so that a hostile value is exactly where a test wants it.

`Forged` is a patch in parts: every field of header and directory can be set to anything, and
`build` writes what stands there.  The stream writers below it take the raw numbers of the
streams, column by column, as docs/format.md lists them.  `toy_pair` makes small executables
whose patches use every stream.
"""

from __future__ import annotations

import functools
import hashlib
import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bsipatch._core import Codec, Diff
from tests.support import toy_elf, toy_macho

LAYOUT, COVER, OVERRIDES, REFS, BYTES, LITERALS = range(1, 7)
MAGIC = b"BSIP"
U64 = (1 << 64) - 1


def varint(value: int) -> bytes:
    """LEB128 of a number modulo 2^64."""
    value &= U64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> int:
    """A signed number as the format packs it, modulo 2^64."""
    return (value << 1 if value >= 0 else ~(value << 1)) & U64


def signed(value: int) -> bytes:
    """LEB128 of a signed number."""
    return varint(zigzag(value))


@dataclass
class Entry:
    """One stream; plain_len and encoded_len say what the directory claims, None the truth."""

    id: int
    plain: bytes
    codec: int = Codec.PLAIN
    encoded: bytes | None = None
    plain_len: int | None = None
    encoded_len: int | None = None


@dataclass
class Forged:
    """A patch in parts."""

    old_size: int
    new_size: int
    streams: list[Entry] = field(default_factory=list)
    old_check: bytes = bytes(8)
    new_check: bytes = bytes(8)
    magic: bytes = MAGIC
    version: int = 1
    growth: int | None = None
    count: int | None = None
    model: bytes = b""

    @classmethod
    def of(cls, old: bytes, new: bytes) -> Forged:
        """The true patch of a pair, all streams plain."""
        streams = [Entry(i, plain) for i, plain in sorted(plain_streams(old, new).items())]
        old_check, new_check = (hashlib.sha256(data).digest()[:8] for data in (old, new))
        return cls(len(old), len(new), streams, old_check, new_check)

    def stream(self, id_: int) -> Entry:
        """The stream of this id, added when there is none."""
        for entry in self.streams:
            if entry.id == id_:
                return entry
        self.streams.append(Entry(id_, b""))
        self.streams.sort(key=lambda entry: entry.id)
        return self.stream(id_)

    def put(self, id_: int, plain: bytes) -> Forged:
        """Replaces a stream by these plain bytes; none when empty. For chaining."""
        self.stream(id_).plain = plain
        self.streams = [entry for entry in self.streams if entry.id != id_ or plain]
        return self

    def build(self) -> bytes:
        """The patch's bytes, true or not."""
        growth = self.new_size - self.old_size if self.growth is None else self.growth
        out = bytearray(self.magic) + bytes([self.version & 255])
        out += varint(self.old_size) + signed(growth) + self.old_check + self.new_check
        out.append((len(self.streams) if self.count is None else self.count) & 255)
        for entry in self.streams:
            encoded = entry.plain if entry.encoded is None else entry.encoded
            out.append(entry.id | entry.codec << 4)
            out += varint(len(entry.plain) if entry.plain_len is None else entry.plain_len)
            if entry.codec not in (Codec.PLAIN, Codec.MODEL):
                out += varint(len(encoded) if entry.encoded_len is None else entry.encoded_len)
        for entry in self.streams:
            if entry.codec != Codec.MODEL:
                out += entry.plain if entry.encoded is None else entry.encoded
        return bytes(out) + self.model


@functools.lru_cache(maxsize=64)
def _plain_streams(old: bytes, new: bytes) -> dict[int, bytes]:
    with Diff(old, new) as diff:
        return {s.id: bytes(s.data or b"") for s in diff.streams()}


def plain_streams(old: bytes, new: bytes) -> dict[int, bytes]:
    """The plain bytes of each stream of the pair's patch, by id."""
    return dict(_plain_streams(old, new))


# --- streams from raw numbers ---


def cover(entries: Sequence[tuple[int, int, int, int]], count: int | None = None) -> bytes:
    """Entries of (gap, length, candidate, way); `count` claims another number of them."""
    out = varint(len(entries) if count is None else count)
    out += b"".join(varint(gap) for gap, _, _, _ in entries)
    out += b"".join(varint(length - 1) for _, length, _, _ in entries)
    return out + b"".join(varint(which) + signed(way) for _, _, which, way in entries)


def fills(items: Iterable[tuple[int, int, int, int, int]], count: int | None = None) -> bytes:
    """Fills of (hash, page bits, offset behind the last one, data offset, data length)."""
    rows = [
        varint((bits - 12) << 2 | hash_) + signed(off) + varint(data_off) + varint(data_len)
        for hash_, bits, off, data_off, data_len in items
    ]
    return varint(len(rows) if count is None else count) + b"".join(rows)


def same_layout(filled: bytes = b"\0") -> bytes:
    """The layout stream of a file that is laid out as the old one."""
    return b"\1" + filled


def layout(images: Sequence[tuple[int, Sequence[bytes]]], filled: bytes = b"\0") -> bytes:
    """Images of (old image, sections as from `section`)."""
    out = b"\0" + varint(len(images))
    for old_image, sections in images:
        out += varint(old_image) + varint(len(sections)) + b"".join(sections)
    return out + filled


def section(pair: int, role: int, size: int, *rest: int) -> bytes:
    """Raw numbers of a section: pair code, role change, then differences of size, offset,
    address and memory size; those that the format leaves out are not to be given."""
    return varint(pair) + varint(role) + signed(size) + b"".join(map(signed, rest))


def overrides(
    images: Sequence[Sequence[tuple[int, int, int]]], chained: int = 1, count: int | None = None
) -> bytes:
    """For each image, overrides of (gap, reach, difference)."""
    out = b""
    for items in images:
        out += varint(len(items) if count is None else count)
        out += b"".join(varint(gap) + varint(reach) for gap, reach, _ in items)
        if items:
            out += varint(chained) + b"".join(signed(diff) for _, _, diff in items)
    return out


def refs(items: Sequence[tuple[int, int]], count: int | None = None) -> bytes:
    """Reference corrections of (gap, delta)."""
    out = varint(len(items) if count is None else count)
    return out + b"".join(varint(g) for g, _ in items) + b"".join(signed(d) for _, d in items)


def fixes(items: Sequence[tuple[int, int]], count: int | None = None) -> bytes:
    """Byte corrections of (gap, difference - 1)."""
    out = varint(len(items) if count is None else count)
    return out + b"".join(varint(gap) for gap, _ in items) + bytes(diff for _, diff in items)


# --- toy executables ---

TOYS = ("arm64", "x86_64", "elf-x86_64", "elf-aarch64", "raw")


@functools.lru_cache(maxsize=64)
def toy_pair(kind: str, seed: int = 0) -> tuple[bytes, bytes]:
    """An old and a new build: functions that call one another and name data; one is inserted.

    Mach-O files of odd seeds have no data segment and are smaller.
    """
    rng = random.Random(f"{kind} {seed}")
    functions = [(rng.randrange(3, 12), rng.randrange(1 << 30)) for _ in range(24)]
    inserted = [*functions[:11], (7, 12345), *functions[11:]]
    inserted[3] = (inserted[3][0], 999)
    if kind == "raw":
        data = rng.randbytes(5000)
        return data, data[:1000] + b"inserted" + data[1000:3000] + rng.randbytes(90) + data[3100:]
    if kind.startswith("elf"):
        return _elf(kind, functions), _elf(kind, inserted)
    return _macho(kind, functions, seed % 2 == 0), _macho(kind, inserted, seed % 2 == 0)


def _code(arm: bool, functions: Sequence[tuple[int, int]], text: int, data: int) -> bytes:
    """Machine code at address `text` for functions of (calls, seed); data is 256 bytes."""
    unit = 20 if arm else 16
    starts = [text]
    for calls, _ in functions:
        starts.append(starts[-1] + unit * calls)
    out = bytearray()
    for calls, seed in functions:
        rng = random.Random(seed)
        for _ in range(calls):
            pick = rng.randrange(24)
            target = starts[pick + (pick >= 11 and len(functions) > 24)]
            named = data + 8 * rng.randrange(32)
            at = text + len(out)
            if arm:
                page = (named >> 12) - (at + 4 >> 12)
                adrp = 0x90000000 | (page & 3) << 29 | (page >> 2 & 0x7FFFF) << 5
                add = 0x91000000 | (named & 0xFFF) << 10
                call = 0x94000000 | (target - at) // 4 & 0x3FFFFFF
                noise = 0xD2800000 | rng.randrange(1 << 16) << 5
                out += struct.pack("<5I", call, adrp, add, noise, 0xD65F03C0)
            else:
                call = target - (at + 5)
                out += b"\xe8" + struct.pack("<i", call)
                out += b"\x48\x8d\x05" + struct.pack("<i", named - (at + 12))
                out += b"\x83\xc0" + bytes([rng.randrange(256)]) + b"\xc3"
    return bytes(out)


def _size(arm: bool, functions: Sequence[tuple[int, int]]) -> int:
    return sum(calls for calls, _ in functions) * (20 if arm else 16)


def _macho(kind: str, functions: Sequence[tuple[int, int]], with_data: bool) -> bytes:
    arm = kind == "arm64"
    toy = toy_macho.ToyMacho(toy_macho.ARM64 if arm else toy_macho.X86_64)
    toy.segment("__TEXT")
    text = toy.section("__text", _size(arm, functions), flags=toy_macho.PURE_INSTRUCTIONS)
    const = toy.section("__const", 256)
    text.data[:] = _code(arm, functions, text.addr, const.addr)
    starts = [text.addr - toy.base]
    for calls, _ in functions[:15]:
        starts.append(starts[-1] + calls * (20 if arm else 16))
    if with_data:
        _macho_data(toy, starts, arm)
    toy.symbols = [(0x0F, 1, toy.base + s) for s in starts]
    toy.table(toy_macho.LC_CODE_SIGNATURE, b"\xfa\xde\x0c\xc0" + bytes(508))
    return _sign(toy.build())


def _macho_data(toy: toy_macho.ToyMacho, starts: Sequence[int], arm: bool) -> None:
    segment = toy.segment("__DATA")
    table = toy.section("__got", 128)
    toy.zerofill("__bss", 64)
    if arm:
        at = table.off - segment.off
        toy.chains(6, {"__DATA": {at + 8 * i: start for i, start in enumerate(starts)}})
    else:
        struct.pack_into("<16Q", table.data, 0, *(toy.base + start for start in starts))
        toy.rebase = bytes([0x11, 0x21, 0x00, 0x50 | 15, 0x51, 0x00])


def _sign(image: bytes) -> bytes:
    """Fills in an ad-hoc signature: one code directory of SHA-256, 4 KiB pages."""
    off = image.index(b"\xfa\xde\x0c\xc0")
    pages = [hashlib.sha256(image[at : min(at + 4096, off)]).digest() for at in range(0, off, 4096)]
    body = b"".join(pages)
    head = struct.pack(">9I4BI", 0xFADE0C02, 44 + len(body), 0x20001, 0, 44, 0, 0, len(pages),
                       off, 32, 2, 0, 12, 0)  # fmt: skip
    blob = struct.pack(">5I", 0xFADE0CC0, 20 + 44 + len(body), 1, 0, 20) + head + body
    return image[:off] + blob + image[off + len(blob) :]


def _elf(kind: str, functions: Sequence[tuple[int, int]]) -> bytes:
    arm = kind == "elf-aarch64"
    toy = toy_elf.ToyElf(machine=toy_elf.AARCH64 if arm else toy_elf.X86_64)
    text = toy.add(".text", flags=toy_elf.ALLOC | toy_elf.EXEC, size=_size(arm, functions))
    data = toy.add(".data", flags=toy_elf.ALLOC | toy_elf.WRITE, size=256)
    text.data = _code(arm, functions, text.addr, data.addr)
    starts = [text.addr]
    for calls, _ in functions[:15]:
        starts.append(starts[-1] + calls * (20 if arm else 16))
    relative = 1027 if arm else 8
    rows = [toy_elf.rela(data.addr + 8 * i, relative, 0, s) for i, s in enumerate(starts)]
    toy.add(".rela.dyn", toy_elf.RELA, data=b"".join(rows)).entry_size = 24
    names = toy.add(".dynstr", toy_elf.STRTAB, data=b"\0" + b"f\0" * 20)
    table = [toy_elf.symbol(1, 0x12, text.index, s, 20) for s in starts]
    symbols = toy.add(".dynsym", toy_elf.DYNSYM, data=bytes(24) + b"".join(table), link=names)
    symbols.entry_size = 24
    toy.add(".bss", toy_elf.NOBITS, toy_elf.ALLOC | toy_elf.WRITE, size=64)
    return toy.build()
