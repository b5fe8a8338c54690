"""Tables that switch statements jump through (format-images-code.md, "Jump tables")."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable
from typing import NamedTuple

from tests.reference.images import arm64, kinds
from tests.reference.images.kinds import MASK64, sext
from tests.reference.images.model import ARM64, CODE, X86_64, Image, Section, within

FAR = 131072  # bytes from a jump whose table has no known length
MOST = 1024


class Table(NamedTuple):
    """A table as the code that reads it tells."""

    addr: int
    site: int
    base: int
    kind: int
    length: int
    counted: bool
    signed: bool


def add_all(image: Image) -> None:
    """Adds the entries of the tables that each section of code reads."""
    finders: dict[int, Callable[[bytes, int], list[Table]]] = {ARM64: find_arm64, X86_64: find_x86}
    finder = finders.get(image.arch)
    if finder is None:
        return
    for section in image.sections:
        if section.role == CODE and section.mapped and section.file_size:
            code = image.file.data[section.file_off : section.end]
            _add_entries(image, section, sorted(finder(code, section.addr)))


def _add_entries(image: Image, section: Section, tables: list[Table]) -> None:
    addrs = sorted({table.addr for table in tables})
    done = None
    for table in tables:
        if table.addr == done:
            continue
        done = table.addr
        size = kinds.SHAPES[table.kind].size
        count = table.length
        after = bisect.bisect_right(addrs, table.addr)
        if after < len(addrs):
            count = min(count, (addrs[after] - table.addr) // size)
        home = image.section_with(table.addr)
        if home is None or not within(table.addr - home.addr, size, home.file_size):
            continue
        count = min(count, (home.file_size - (table.addr - home.addr)) // size)
        off = home.file_off + table.addr - home.addr
        for at in range(off, off + count * size, size):
            value = int.from_bytes(image.file.data[at : at + size], "little")
            if table.signed and value >> (8 * size - 1):
                continue
            target = kinds.read(table.kind, value, 0, table.base)
            assert target is not None
            if not section.addr <= target < section.addr + section.file_size:
                break
            if image.arch == ARM64 and target % 4:
                break
            if not table.counted and abs(target - table.site) > FAR:
                break
            image.add(at, table.kind, image.register(table.base))


class _Arm64:
    """The words of a section, searched backwards."""

    def __init__(self, code: bytes, addr: int) -> None:
        self.words: tuple[int, ...] = struct.unpack_from(f"<{len(code) // 4}I", code)
        self.addr = addr

    def back(self, start: int, reach: int, mask: int, match: int) -> int | None:
        for i in range(start - 1, max(start - reach, 0) - 1, -1):
            if self.words[i] & mask == match:
                return i
        return None

    def address(self, start: int, reach: int, register: int) -> int | None:
        """What the register holds at a word, by an ADR or an ADRP with its ADD."""
        d = self.back(start, reach, 0x9F00001F, 0x10000000 | register)
        s = self.back(start, reach, 0xFFC0001F, 0x91000000 | register)
        if d is not None and (s is None or d > s):
            return self.addr + 4 * d + arm64.adr_number(self.words[d]) & MASK64
        if s is None:
            return None
        p = self.back(s, 16, 0x9F00001F, 0x90000000 | self.words[s] >> 5 & 31)
        if p is None:
            return None
        page = (self.addr + 4 * p & ~0xFFF) + 4096 * arm64.adr_number(self.words[p])
        return page + (self.words[s] >> 10 & 0xFFF) & MASK64

    def count(self, load: int, register: int) -> int | None:
        """How many entries the code before the load allows, None when it does not say."""
        words = self.words
        c = self.back(load, 32, 0x7FC003FF, 0x7100001F | register << 5)
        if c is None or all(words[i] & 0xFF00001E != 0x54000008 for i in range(c, load)):
            c = load - 1
            while c >= max(load - 32, 0) and not (
                words[c] & 0x7FC0001F == 0x7100001F and words[c + 1] & 0xFF00001E == 0x54000008
            ):
                c -= 1
            if c < max(load - 32, 0):
                return None
        return min(1 + (words[c] >> 10 & 0xFFF), MOST)

    def table(self, jump: int) -> Table | None:
        words, signed = self.words, False
        a = self.back(jump, 6, 0xFF00001F, 0x8B000000 | words[jump] >> 5 & 31)
        if a is None:
            return None
        total = words[a]
        rn, rm = total >> 5 & 31, total >> 16 & 31
        addr: int | None
        base: int | None
        if total & 0xFFE0FC00 == 0x8B000800 or total & 0xFFE01C00 == 0x8B200800:
            signed = total & 0xFFE0FC00 != 0x8B000800 and (total >> 13 & 7) >= 4
            kind = kinds.BASE8X4
            load = self.back(a, 12, 0xFFE00C1F, 0x38600800 | rm)
            if load is None:
                kind = kinds.BASE16X4
                load = self.back(a, 12, 0xFFE00C1F, 0x78600800 | rm)
            if load is None:
                return None
            base = self.address(a, 16, rn)
            addr = self.address(load, 512, words[load] >> 5 & 31)
        elif total & 0xFFE0FC00 == 0x8B000000:
            kind = kinds.BASE32
            load, other = self.back(a, 12, 0xFFE0FC1F, 0xB8A07800 | rm), rn
            if load is None:
                load, other = self.back(a, 12, 0xFFE0FC1F, 0xB8A07800 | rn), rm
            if load is None or words[load] >> 5 & 31 != other:
                return None
            addr = base = self.address(load, 512, words[load] >> 5 & 31)
        else:
            return None
        if addr is None or base is None:
            return None
        count = self.count(load, words[load] >> 16 & 31)
        counted = count is not None
        if count is None:
            count = MOST if kind == kinds.BASE32 else 64
        return Table(addr, self.addr + 4 * jump & MASK64, base, kind, count, counted, signed)


def find_arm64(code: bytes, addr: int) -> list[Table]:
    searched = _Arm64(code, addr)
    jumps = (j for j, word in enumerate(searched.words) if word & 0xFFFFFC1F == 0xD61F0000)
    found = [searched.table(j) for j in jumps]
    return [table for table in found if table is not None]


class _X86:
    """The bytes of a section, searched backwards."""

    def __init__(self, code: bytes, addr: int) -> None:
        self.code = code
        self.addr = addr

    def wide(self, i: int, opcode: int) -> bool:
        return self.code[i] & 0xF8 == 0x48 and self.code[i + 1] == opcode

    def reg(self, i: int) -> int:
        return (self.code[i + 2] >> 3 & 7) + (8 if self.code[i] & 4 else 0)

    def rm(self, i: int) -> int:
        return (self.code[i + 2] & 7) + (8 if self.code[i] & 1 else 0)

    @staticmethod
    def greatest(first: int, last: int, fits: Callable[[int], bool]) -> int | None:
        for i in range(last, max(first, 0) - 1, -1):
            if fits(i):
                return i
        return None

    def adds(self, i: int, register: int) -> int | None:
        """The other register of an addition to this one, None when it is none."""
        if self.code[i + 2] >= 0xC0:
            if self.wide(i, 0x01) and self.rm(i) == register:
                return self.reg(i)
            if self.wide(i, 0x03) and self.reg(i) == register:
                return self.rm(i)
        return None

    def loads(self, i: int, a: int) -> tuple[int, int] | None:
        """(table register, entry register) of a scaled load before `a`."""
        c = self.code
        if not self.wide(i, 0x63) or c[i + 2] & 7 != 4 or c[i + 3] >> 6 != 2:
            return None
        mod = c[i + 2] >> 6
        sound = (mod == 0 and c[i + 3] & 7 != 5) or (mod == 1 and i + 5 <= a and c[i + 4] == 0)
        table = (c[i + 3] & 7) + (8 if c[i] & 1 else 0)
        return (table, self.reg(i)) if sound else None

    def above(self, k: int) -> bool:
        return self.code[k] == 0x77 or (self.code[k] == 0x0F and self.code[k + 1] == 0x87)

    def last(self, i: int) -> int | None:
        """The greatest index that a comparison at `i` lets pass."""
        c = self.code
        first = c[i]
        if first in (0x80, 0x83) and c[i + 1] >= 0xF8 and c[i + 2] < 0x80 and self.above(i + 3):
            return c[i + 2]
        if first == 0x3C and self.above(i + 2):
            return c[i + 1]
        if first == 0x3D and self.above(i + 5):
            return int.from_bytes(c[i + 1 : i + 5], "little")
        if first == 0x81 and c[i + 1] >= 0xF8 and self.above(i + 6):
            return int.from_bytes(c[i + 2 : i + 6], "little")
        return None

    def table(self, j: int) -> Table | None:
        c = self.code
        register, b = c[j + 1] & 7, j
        if j > 0 and c[j - 1] == 0x41:
            register, b = register + 8, j - 1
        a = self.greatest(b - 24, b - 3, lambda i: self.adds(i, register) is not None)
        if a is None:
            return None
        other = self.adds(a, register)
        pairs = ((register, other), (other, register))
        load = self.greatest(a - 48, a - 4, lambda i: self.loads(i, a) in pairs)
        if load is None:
            return None
        loaded = self.loads(load, a)
        assert loaded is not None
        lea = self.greatest(
            load - 512,
            load - 7,
            lambda i: self.wide(i, 0x8D) and c[i + 2] & 0xC7 == 5 and self.reg(i) == loaded[0],
        )
        if lea is None:
            return None
        distance = sext(int.from_bytes(c[lea + 3 : lea + 7], "little"), 32)
        addr = self.addr + lea + 7 + distance & MASK64

        def bounds(i: int) -> bool:
            last = self.last(i)
            return last is not None and last < MOST

        i = self.greatest(load - 80, load - 8, bounds)
        last = self.last(i) if i is not None else None
        count = MOST if last is None else last + 1
        site = self.addr + j & MASK64
        return Table(addr, site, addr, kinds.BASE32, count, last is not None, False)


def find_x86(code: bytes, addr: int) -> list[Table]:
    searched = _X86(code, addr)
    found = []
    j = code.find(b"\xff")
    while 0 <= j < len(code) - 1:
        if code[j + 1] & 0xF8 == 0xE0:
            table = searched.table(j)
            if table is not None:
                found.append(table)
        j = code.find(b"\xff", j + 1)
    return found
