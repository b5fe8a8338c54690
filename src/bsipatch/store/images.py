"""Executable images: does a file parse as one, and could this host load it?

Knows as much of ELF and Mach-O as that takes.  Every number comes from the
file and is checked before it is used: a file that claims to be an image and is
not well formed raises CorruptError, and nothing else.
"""

from __future__ import annotations

import itertools
import os
import platform
import struct
import sys
from dataclasses import dataclass

from ..errors import CorruptError
from . import codesign

_ELF = b"\x7fELF"
#: file's first four bytes -> (bits, byte order)
_MACHO = {
    b"\xcf\xfa\xed\xfe": (64, "<"),
    b"\xce\xfa\xed\xfe": (32, "<"),
    b"\xfe\xed\xfa\xcf": (64, ">"),
    b"\xfe\xed\xfa\xce": (32, ">"),
}
#: likewise for fat files, whose headers are always big-endian -> bits of offsets
_FAT = {b"\xca\xfe\xba\xbe": 32, b"\xca\xfe\xba\xbf": 64}
#: from here on the count of a "fat file" is the version of a Java class
_MAX_SLICES = 42
_MAX_COMMANDS = 1 << 16
_MAX_COMMAND_BYTES = 64 << 20
_MAX_HEADERS = 1 << 16
_MAX_DYNAMIC = 1 << 20

_LC_SEGMENT, _LC_SEGMENT_64, _LC_CODE_SIGNATURE = 0x1, 0x19, 0x1D
_MH_DYLIB, _MH_BUNDLE = 6, 8
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_ET_DYN, _SHT_NOBITS = 3, 8
_DT_FLAGS_1, _DF_1_PIE = 0x6FFFFFFB, 0x08000000
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243, "ppc64le": 21, "s390x": 22}
_MACHO_MACHINES = {"arm64": 0x0100000C, "x86_64": 0x01000007}


@dataclass(frozen=True, slots=True)
class Image:
    """kind: "ELF" or "Mach-O". library: loadable by this host. pages: of signatures, compared."""

    kind: str
    library: bool
    pages: int


class _File:
    """Bounded reading of one file."""

    def __init__(self, fd: int, start: int = 0, size: int | None = None) -> None:
        self._fd, self._start = fd, start
        self.size = os.fstat(fd).st_size if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises CorruptError beyond the end."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise CorruptError("it ends too early", offset=offset, expected=length)
        found = b""
        while len(found) < length:
            piece = os.pread(self._fd, length - len(found), self._start + offset + len(found))
            if not piece:
                raise CorruptError("it became shorter while it was read", offset=offset)
            found += piece
        return found

    def unpack(self, form: str, offset: int) -> tuple[int, ...]:
        """Integers at `offset`."""
        return struct.unpack(form, self.read(offset, struct.calcsize(form)))

    def part(self, offset: int, size: int) -> _File:
        """A slice, whose offsets start at 0 again."""
        if offset + size > self.size:
            raise CorruptError("a slice lies outside the file", offset=offset, found=size)
        return _File(self._fd, self._start + offset, size)


def inspect(fd: int) -> Image | None:
    """Checks the file behind a descriptor; None when it is no executable image.

    Raises CorruptError that says what is wrong with it, OSError.
    """
    file = _File(fd)
    if file.size < 4:
        return None
    magic = file.read(0, 4)
    if magic == _ELF:
        return _elf(file)
    if magic in _MACHO:
        library, pages = _macho(file, magic)
        return Image("Mach-O", library, pages)
    if magic in _FAT and file.size >= 8:
        (count,) = file.unpack(">I", 4)
        if 0 < count <= _MAX_SLICES:
            return _fat(file, _FAT[magic], count)
    return None


# --- Mach-O ---


def _fat(file: _File, bits: int, count: int) -> Image:
    form, step = (">IIIII", 20) if bits == 32 else (">IIQQII", 32)
    spans = []
    library, pages = False, 0
    for index in range(count):
        _, _, offset, size, *_ = file.unpack(form, 8 + index * step)
        if offset < 8 + count * step:
            raise CorruptError("a slice overlaps the header", offset=offset)
        spans.append((offset, size))
    spans.sort()
    for (at, size), (after, _) in itertools.pairwise(spans):
        if at + size > after:
            raise CorruptError("two slices overlap", offset=after)
    for at, size in spans:
        part = file.part(at, size)
        magic = part.read(0, 4)
        if magic not in _MACHO:
            continue  # a static library, for example
        loadable, compared = _macho(part, magic)
        library, pages = library or loadable, pages + compared
    return Image("Mach-O", library, pages)


def _macho(file: _File, magic: bytes) -> tuple[bool, int]:
    """Load commands, segments and the signature of one slice."""
    bits, order = _MACHO[magic]
    head = 32 if bits == 64 else 28
    cpu, _, kind, count, length = file.unpack(f"{order}5I", 4)
    if count > _MAX_COMMANDS or length > _MAX_COMMAND_BYTES or head + length > file.size:
        raise CorruptError("its load commands do not fit", found=count)
    commands = file.read(head, length)
    at = pages = 0
    signed = False
    for index in range(count):
        if at + 8 > length:
            raise CorruptError(f"load command {index} does not fit")
        command, size = struct.unpack_from(f"{order}II", commands, at)
        if size < 8 or size % 4 or at + size > length:
            raise CorruptError(f"load command {index} has a wrong size", found=size)
        body = commands[at : at + size]
        if command in (_LC_SEGMENT, _LC_SEGMENT_64):
            _segment(body, order, command == _LC_SEGMENT_64, file.size)
        elif command == _LC_CODE_SIGNATURE:
            if size < 16 or signed:
                raise CorruptError("its signature's load command is short, or there are two")
            signed = True
            offset, span = struct.unpack_from(f"{order}II", body, 8)
            pages += codesign.check(file.read, offset, span, file.size)
        at += size
    here = sys.platform == "darwin" and _MACHO_MACHINES.get(platform.machine()) == cpu
    return here and kind in (_MH_DYLIB, _MH_BUNDLE), pages


def _segment(body: bytes, order: str, wide: bool, size: int) -> None:
    form, at = (f"{order}QQ", 40) if wide else (f"{order}II", 32)
    if len(body) < at + struct.calcsize(form):
        raise CorruptError("a segment's load command is too short")
    offset, length = struct.unpack_from(form, body, at)
    if length and offset + length > size:
        name = body[8:24].split(b"\0")[0].decode("ascii", "replace")
        raise CorruptError(f"segment {name!a} lies outside the file", offset=offset)


# --- ELF ---


def _elf(file: _File) -> Image:
    """Header, program headers, section headers."""
    wide, endian = {1: 0, 2: 1}.get(file.read(4, 1)[0]), {1: "<", 2: ">"}.get(file.read(5, 1)[0])
    if wide is None or endian is None:
        raise CorruptError("its class or byte order is unknown")
    kind, machine = file.unpack(f"{endian}HH", 16)
    word = "Q" if wide else "I"
    _, phoff, shoff = file.unpack(f"{endian}3{word}", 24)
    _, _, phsize, phnum, shsize, shnum, _ = file.unpack(f"{endian}I6H", 48 if wide else 36)
    programs = _table(file, phoff, phsize, phnum, (56 if wide else 32), "program")
    sections = _table(file, shoff, shsize, shnum, (64 if wide else 40), "section")
    stripped = _is_debug(sections, endian, shsize, shnum)
    found = set()
    dynamic = (0, 0)
    for index in range(phnum):
        at = index * phsize
        (what,) = struct.unpack_from(f"{endian}I", programs, at)
        found.add(what)
        offset, size = (
            struct.unpack_from(f"{endian}Q16xQ", programs, at + 8)
            if wide
            else struct.unpack_from(f"{endian}I8xI", programs, at + 4)
        )
        if what in (_PT_LOAD, _PT_DYNAMIC) and not stripped and offset + size > file.size:
            raise CorruptError(f"segment {index} lies outside the file", offset=offset, found=size)
        if what == _PT_DYNAMIC:
            dynamic = (offset, size)
    here = (
        sys.platform == "linux"
        and _ELF_MACHINES.get(platform.machine()) == machine
        and (wide == 1) == (sys.maxsize > 1 << 32)
        and endian == ("<" if sys.byteorder == "little" else ">")
    )
    library = kind == _ET_DYN and _PT_DYNAMIC in found and _PT_INTERP not in found
    if here and library and not stripped:
        library = not _is_program(file, *dynamic, endian, bool(wide))
    return Image("ELF", here and library and not stripped, 0)


def _table(file: _File, offset: int, each: int, count: int, least: int, what: str) -> bytes:
    if not count or not offset:
        return b""
    if not least <= each <= 4 * least or count > _MAX_HEADERS:
        raise CorruptError(f"its {what} headers have a wrong size or number", found=each)
    try:
        return file.read(offset, each * count)
    except CorruptError:
        raise CorruptError(f"its {what} headers lie outside the file", offset=offset) from None


def _is_debug(sections: bytes, endian: str, each: int, count: int) -> bool:
    """Whether only debugging information is left: code sections without bytes."""
    for at in range(0, len(sections), each or 1):
        kind, flags = struct.unpack_from(f"{endian}I{'Q' if each >= 64 else 'I'}", sections, at + 4)
        if kind == _SHT_NOBITS and flags & 4:  # executable
            return count > 0
    return False


def _is_program(file: _File, offset: int, size: int, endian: str, wide: bool) -> bool:
    """Whether the dynamic section says "position-independent executable"."""
    form, step = (f"{endian}QQ", 16) if wide else (f"{endian}II", 8)
    data = file.read(offset, min(size, _MAX_DYNAMIC) // step * step)
    for tag, value in struct.iter_unpack(form, data):
        if tag == 0:
            return False
        if tag == _DT_FLAGS_1:
            return bool(value & _DF_1_PIE)
    return False
