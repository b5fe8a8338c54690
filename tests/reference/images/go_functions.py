"""Go's table of functions (format-images-macho.md, "Go's functions")."""

from __future__ import annotations

from tests.reference.images import kinds
from tests.reference.images.kinds import MASK64
from tests.reference.images.model import OTHER, Image, within

NO_DATA = 0xFFFFFFFF


def read(image: Image, off: int, size: int, addr: int) -> None:
    """Adds what the table of a section names."""
    if size < 72:
        return
    u32, u64 = image.file.u32, image.file.u64
    if u32(off) != 0xFFFFFFF1 or image.file.u8(off + 7) != 8:
        return
    count, text, n, p, f = (u64(off + i) for i in (8, 24, 32, 56, 64))
    if max(n, p, f) > size:
        return
    _Table(image, off, size, addr, (text, n, p, f)).read(min(count, (size - f) // 8))


class _Table:
    def __init__(
        self, image: Image, off: int, size: int, addr: int, places: tuple[int, int, int, int]
    ) -> None:
        self.image, self.off, self.size, self.addr = image, off, size, addr
        text, self.n, self.p, self.f = places
        self.text = image.register(text)
        self.names = image.register(addr + self.n)
        self.pcs = image.register(addr + self.p)
        self.funcs = image.register(addr + self.f)
        self.data_addr = self._module_data(text)
        self.data = image.register(self.data_addr) if self.data_addr is not None else 0
        self.left = size // 4
        self.steps = size

    def _module_data(self, text: int) -> int | None:
        u64 = self.image.file.u64
        names = self.addr + self.n & MASK64
        for section in self.image.sections:
            if section.role != OTHER:
                continue
            for at in range(section.file_off, section.end - 327, 8):
                if u64(at) == self.addr and u64(at + 8) == names and u64(at + 176) == text:
                    return u64(at + 320)
        return None

    def add(self, off: int, base: int) -> None:
        """Adds a reference at an offset in the file, as long as any are left."""
        if self.left:
            self.left -= 1
            self.image.add(off, kinds.BASE32, base)

    def u32(self, at: int) -> int:
        return self.image.file.u32(self.off + at)

    def read(self, count: int) -> None:
        for i in range(count):
            if not self.left:
                break
            entry = self.f + 8 * i
            self.add(self.off + entry, self.text)
            self.add(self.off + entry + 4, self.funcs)
            record = self.f + self.u32(entry + 4)
            if within(record, 44, self.size):
                self.record(record)

    def record(self, r: int) -> None:
        a, b = self.u32(r + 28), self.image.file.u8(self.off + r + 43)
        if not within(r + 44, 4 * (a + b), self.size):
            return
        self.add(self.off + r, self.text)
        self.add(self.off + r + 4, self.names)
        for at in [r + 16, r + 20, r + 24, *range(r + 44, r + 44 + 4 * a, 4)]:
            if not self.left:
                return
            if self.u32(at):
                self.add(self.off + at, self.pcs)
        if self.data_addr is None:
            return
        d = r + 44 + 4 * a
        if b > 3 and a > 2:
            tree, values = self.u32(d + 12), self.u32(r + 52)
            if tree != NO_DATA and values:
                self.inlined(tree, self.highest(self.p + values))
        for at in range(d, d + 4 * b, 4):
            if self.u32(at) != NO_DATA:
                self.add(self.off + at, self.data)

    def inlined(self, tree: int, last: int) -> None:
        assert self.data_addr is not None
        for i in range(last + 1):
            at = self.image.offset_of(self.data_addr + tree + 16 * i & MASK64, 16)
            if at is None or not self.left:
                break
            self.add(at + 4, self.names)

    def highest(self, at: int) -> int:
        """The greatest value of a table of values by addresses."""
        value = most = -1
        first = True
        while at < self.size and self.steps:
            step, at = self.number(at)
            if step == 0 and not first:
                break
            first = False
            value += step >> 1 if step % 2 == 0 else -(step + 1 >> 1)
            value = (value + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
            most = max(most, value)
            _, at = self.number(at)
        return most

    def number(self, at: int) -> tuple[int, int]:
        """A LEB128 number of 32 bits, and the position behind it."""
        value = shift = 0
        while at < self.size and self.steps:
            byte = self.image.file.u8(self.off + at)
            at += 1
            self.steps -= 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value & 0xFFFFFFFF, at
        return 0, at
